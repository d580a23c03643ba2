"""Attack a model, and judge whether the attack is strong enough."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from hauberk.attacks import APGD, EOT, Attack, AutoAttack, EOTSweep, PartAttack
from hauberk.attacks.autoattack import Version, by_scores
from hauberk.attacks.gradients import EOT_DRAWS
from hauberk.capabilities import HasParts, NamedOutputs, ScoresOnly
from hauberk.errors import HauberkError
from hauberk.evaluation.cost import foretell
from hauberk.evaluation.signing import sign
from hauberk.evaluation.units import attack_records, diagnosis_records
from hauberk.evaluation.work import INLINE, Report, Work
from hauberk.executors import Executor
from hauberk.recipes import Plan
from hauberk.runs import Run
from hauberk.subjects import Subject
from hauberk.threats import Threat, counterpart
from hauberk.verbs.samples import note, setting_of

OTHER_STEPS = 50  # of the attack in another norm, and of those on fixed draws
FIXED = (1, EOT_DRAWS)  # draws of attacks that tell how errors carry over


def attack(
    target: Subject,
    attacks: Sequence[Attack],
    plan: Plan = Plan(),
    shard: tuple[int, int] = (0, 1),
    report: Report | None = None,
    executor: Executor = INLINE,
) -> Run:
    """Attack a subject's images and leave records in its run.

    Args:
        target: from ``subject``.
        attacks: what to run, one after another; the report takes the worst case over them, image by image.
        plan: split, number of images, seed, tile, gallery, device; a recipe's evaluation is a plan.
        shard: (i, n) to do every n-th unit.
        report: called after each unit.
        executor: does the units.
    """
    samples, setting = setting_of(target, plan, *attacks)
    foretell(target.model, samples, attacks, plan.tile, len(setting.classes), shard, report)
    started = time.monotonic()
    work = Work(target.run.records, shard, report, target.begin, executor)
    done = [part for item in attacks for part in attack_records(target.model, samples, item, setting, work)]
    if done:
        sign(target.begin(), "attack_seconds", started, done, samples.ids)
        note(target)
    return target.run


def suite(target: Subject, threat: Threat, version: Version = "fast") -> tuple[AutoAttack, *tuple[PartAttack, ...]]:
    """AutoAttack as a model needs it: with the losses that read its outputs, and with attacks on each of its parts.

    A defence made of classifiers declares ``adaptive_losses`` and ``parts()``, so that it is attacked as a defence and
    not as a plain net; the report takes the worst case over all attacks, image by image. A model without gradients is
    attacked only by Square.

    Args:
        target: from ``subject``.
        threat: norm ball in the pixel box.
        version: of AutoAttack.
    """
    model = target.model
    if isinstance(model, ScoresOnly):
        left = by_scores(threat).get("fast" if version == "fast" else "standard", ())
        return (AutoAttack(threat, version="custom", attacks=left),)
    losses = model.adaptive_losses if isinstance(model, NamedOutputs) else ()
    names = tuple(model.parts()) if isinstance(model, HasParts) else ()
    return AutoAttack(threat, version=version, losses=losses), *(PartAttack(threat, part=name) for name in names)


def random_suite(target: Subject, threat: Threat, version: Version = "rand") -> list[Attack]:
    """The attacks on a random model: AutoAttack ``rand``, a sweep over draws, and attacks on 1 and 20 fixed draws.

    The last two show how errors transfer between draws. A model without gradients is attacked only by Square.

    Args:
        target: from ``subject``.
        threat: norm ball in the pixel box.
        version: of AutoAttack; ``rand`` stands beside any other, which is made for deterministic models.
    """
    found: list[Attack] = [*suite(target, threat, version)]
    if isinstance(target.model, ScoresOnly):
        return found
    found += [AutoAttack(threat, version="rand")] if version != "rand" else []
    walk = APGD(threat, "margin", early_stop=False, steps=OTHER_STEPS)
    fixed = [EOT(threat, attack=walk, draws=n, mean="logits", fixed=True) for n in FIXED]
    return [*found, EOTSweep(threat), *fixed]


def other_norm(target: Subject, threat: Threat) -> Attack:
    """An attack in a norm for which the model was perhaps not trained, at a budget of comparable size."""
    other = counterpart(threat, math.prod(target.dataset.input_shape))
    if isinstance(target.model, ScoresOnly):
        return by_scores(other)["fast"][0]
    return APGD(other, steps=OTHER_STEPS)


def diagnose(
    target: Subject, attack: Attack, plan: Plan = Plan(images=64), report: Report | None = None
) -> Run:
    """Judge whether an attack on a subject is strong enough, and record the checks in its run.

    Args:
        target: from ``subject``.
        attack: the attack to judge.
        plan: split, number of images (64 to 128 are enough), seed and tile.
        report: called at the end.

    Raises:
        HauberkError: if the model gives no gradients, which the checks follow.
    """
    if isinstance(target.model, ScoresOnly):
        raise HauberkError(
            "the checks of an attack need gradients, and this model has none",
            "leave --diagnose out, or attack the network from which the file was exported",
        )
    samples, setting = setting_of(target, plan, attack)
    started = time.monotonic()
    work = Work(target.run.records, report=report, begin=target.begin)
    diagnosis_records(target.model, samples, attack, setting, work)
    sign(target.begin(), "diagnose_seconds", started)
    note(target)
    return target.run
