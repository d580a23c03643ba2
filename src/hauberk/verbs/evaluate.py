"""Evaluate a model from end to end: look at it, attack it, certify what can be proved, judge the attack."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import APGD, Attack
from hauberk.attacks.autoattack import Version
from hauberk.attacks.gradients import draws
from hauberk.capabilities import ScoresOnly
from hauberk.certificates import Certificate
from hauberk.classifier import TILE, decide
from hauberk.data import Selection
from hauberk.data.given import of_arrays
from hauberk.devices import Device, device_of, place
from hauberk.errors import HauberkError
from hauberk.evaluation import cost
from hauberk.evaluation.diagnostics import cost as diagnosis_cost
from hauberk.evaluation.preflight import Finding
from hauberk.evaluation.sense import check_sense
from hauberk.evaluation.work import INLINE, Report
from hauberk.executors import Executor
from hauberk.recipes import Plan, parse
from hauberk.runs import Run
from hauberk.subjects import Subject, check_kept, subject
from hauberk.threats import Linf, Threat
from hauberk.verbs.attack import attack, diagnose, other_norm, random_suite, suite
from hauberk.verbs.certify import certify, default_certificate, lipschitz_refusal, of_draws
from hauberk.verbs.check import check
from hauberk.verbs.outcome import Outcome, outcome
from hauberk.verbs.samples import evaluation_samples, probe_batch

DIAGNOSED = 64  # images on which an attack is judged
USUAL = 1000  # images of an evaluation where nobody says
THREAT = Linf(2 / 255)  # where nobody says: a change of two grey levels of 255
VOTE = "A smoothed version of it can be certified by votes over noise: --certify smoothing,sigma=0.25."
PASSABLE = ("accuracy", "classes", "input gradient")  # what check calls out and an evaluation can still measure


@dataclass(frozen=True)
class Planned:
    """What an evaluation does.

    Args:
        attacks: one after another.
        certificates: what is proved.
        diagnosed: the attacks that are judged.
        plan: of the images.
        seconds: what all of it takes at most, by the speed of a few calls; NaN where a part cannot be foretold.
        remarks: what it cannot show, in sentences.
        findings: what the check saw.
    """

    attacks: tuple[Attack, ...]
    certificates: tuple[Certificate, ...]
    diagnosed: tuple[Attack, ...]
    plan: Plan
    seconds: float
    remarks: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def planned(
    target: Subject,
    threat: Threat | None = None,
    plan: Plan = Plan(),
    attacks: Sequence[Attack] = (),
    certificates: Sequence[Certificate] | None = None,
    version: Version | None = None,
) -> Planned:
    """Check a model, and plan its evaluation with its cost; nothing is measured yet.

    Args:
        target: from ``subject``.
        threat: of the suite; None takes that of ``usual``.
        plan: split, number of images, seed, tile and device.
        attacks: in place of AutoAttack, or beside it where a version is given.
        certificates: None takes the recipe's, else what the model's structure allows.
        version: of AutoAttack; with none, no threat and no attacks the recipe's attacks and diagnoses are taken, and
            without these ``fast``, for a random model ``rand`` with a sweep over draws.

    Raises:
        HauberkError: if the check finds what no evaluation can live with.
    """
    found = check(target, None, 1, plan.tile, plan.device)
    bad = next((f for f in found.findings if not f.good and f.name not in PASSABLE), None)
    if bad is not None or found.speed is None:
        said = bad or next(f for f in found.findings if not f.good)
        raise HauberkError(
            f"this model cannot be evaluated: {said.name}: {said.text}", "see all checks with: hauberk check"
        )
    images = probe_batch(target.dataset, TILE).images.to(device_of(target.model))
    random = draws(target.model, images[:1]) > 1
    recipe = target.recipe.get("evaluation", {})
    kept = recipe if threat is None and not attacks and version is None else {}
    chosen = [registry.build(spec, "attack") for spec in kept.get("attacks", [])] or list(attacks)
    if version is not None or not chosen:
        ball = threat or usual(target)
        own = random_suite(target, ball, version or "rand") if random else suite(target, ball, version or "fast")
        chosen += [*own, other_norm(target, ball)]
    judged = [registry.build(spec, "attack") for spec in kept.get("diagnoses", [])]
    judged = judged or _judged(target, chosen[0].threat)
    proofs, remarks = _proofs(target, certificates, recipe)
    check_sense(*chosen, *judged, *proofs, shape=target.dataset.input_shape)
    count = len(_samples(target, plan))
    methods, classes = (*chosen, *_voting(proofs)), target.dataset.num_classes
    each = cost.per_image(target.model, images, methods, classes, random, found.speed)
    looks = len(judged) * min(DIAGNOSED, count) * diagnosis_cost(random=random) * found.speed.gradient
    if random and version not in (None, "rand"):
        remarks += (f"AutoAttack {version} is made for deterministic models: of this random one rand counts.",)
    if not judged:
        remarks += ("No check judges the attack: they follow gradients, and the model gives none.",)
    return Planned(tuple(chosen), proofs, tuple(judged), plan, count * each + looks, remarks, found.findings)


def usual(target: Subject) -> Threat:
    """The default threat: that of the first attack in the run's recipe, else 2/255 in Linf."""
    specs = target.recipe.get("evaluation", {}).get("attacks", [])
    return registry.build(specs[0], "attack").threat if specs else THREAT


def _judged(target: Subject, threat: Threat) -> list[Attack]:
    return [] if isinstance(target.model, ScoresOnly) else [APGD(threat)]


def _voting(proofs: Sequence[Certificate]) -> list[Certificate]:
    return [p for p in proofs if cost.vote_count(p)]  # others take about as long as a few passes


def _proofs(
    target: Subject, certificates: Sequence[Certificate] | None, recipe: Any
) -> tuple[tuple[Certificate, ...], tuple[str, ...]]:
    """What is proved, and why nothing is where nothing is."""
    if certificates is not None:
        return tuple(certificates), ()
    fixed = [registry.build(spec, "certificate") for spec in recipe.get("certificates", [])]
    fitting = fixed or [c for c in (default_certificate(target) or of_draws(target),) if c is not None]
    if fitting:
        return tuple(fitting), ()
    why = lipschitz_refusal(target)
    return (), (f"Nothing is proved: {why}. {VOTE}",)


def carried_out(target: Subject, wanted: Planned, report: Report | None = None, executor: Executor = INLINE) -> Run:
    """Attack, certify and judge; what is on record already is not done again.

    Args:
        target: from ``subject``.
        wanted: from ``planned``.
        report: called after each unit.
        executor: does the units.
    """
    told = replace(target, remarks=(*target.remarks, *wanted.remarks))
    attack(told, wanted.attacks, wanted.plan, report=report, executor=executor)
    if wanted.certificates:
        certify(told, wanted.certificates, wanted.plan, report=report, executor=executor)
    plan = wanted.plan
    few = plan.model_copy(update={"images": min(DIAGNOSED, len(_samples(target, plan)))})
    place(target.model, plan.device)
    for item in wanted.diagnosed if _any_right(target, few) else ():
        diagnose(told, item, few, report)
    return told.run


def _samples(target: Subject, plan: Plan) -> Selection:
    return evaluation_samples(target.dataset, plan.split, plan.images, plan.choice)


def _any_right(target: Subject, few: Plan) -> bool:
    """Whether some image is classified right: else no attack can fail, and none is judged."""
    batch = _samples(target, few).batch().to(device_of(target.model))
    return bool((decide(target.model, batch, few.seed, few.tile) == batch.labels).any())


def follow(run: Run, report: Report | None = None, device: Device = "auto", executor: Executor = INLINE) -> Run:
    """Run the attacks, certificates and diagnoses of a run's recipe.

    Args:
        run: with a recipe.
        report: called after each unit.
        device: where.
        executor: does the units.
    """
    check_kept(run)
    recipe = parse(run.recipe)
    target, plan = subject(run.path), recipe.evaluation.model_copy(update={"device": device})
    attacks = [registry.build(spec, "attack") for spec in plan.attacks]
    certificates = [registry.build(spec, "certificate") for spec in plan.certificates]
    if attacks:
        attack(target, attacks, plan, report=report, executor=executor)
    if certificates:
        certify(target, certificates, plan, report=report, executor=executor)
    few = plan.model_copy(update={"images": min(DIAGNOSED, plan.images or DIAGNOSED)})
    for spec in plan.diagnoses:
        diagnose(target, registry.build(spec, "attack"), few, report)
    return run


Images = Tensor | np.ndarray


def evaluate(
    model: nn.Module | Subject | Run,
    images: Images | None = None,
    labels: Images | Sequence[int] | None = None,
    threat: Threat | str | None = None,
    *,
    certify: Sequence[Certificate] | None = None,
    plan: Plan | None = None,
    out: Path | str | None = None,
    report: Report | None = None,
) -> Outcome:
    """Attack a model, prove what can be proved, judge the attack, and give the numbers with their intervals.

    Args:
        model: in eval mode, from images in [0, 1] to logits; or a run, or what ``hauberk.subject`` opened.
        images: shape (N, C, H, W), (N, H, W, C) or (N, H, W); bytes, or floats in [0, 1].
        labels: classes, shape (N,).
        threat: for example ``"linf:2/255"``, the default.
        certify: certificates; None takes what the model's structure allows.
        plan: number of images, seed, tile and device; None takes all images, and for a run the settings of its recipe.
        out: a folder for the records, with which the same call goes on where it was stopped; without one only the
            numbers are kept.
        report: called after each unit.

    Returns:
        the numbers: printed they are a table, in a notebook too; ``frame()`` makes a data frame of them.

    Raises:
        HauberkError: if images, labels or model are not what is expected.

    Example:
        >>> import hauberk
        >>> from hauberk.data import load
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
        >>> batch = load("digits").test.batch(slice(0, 8))
        >>> found = str(hauberk.evaluate(model, batch.images, batch.labels, "linf:2/255"))  # a table
        >>> [row for row in ("clean", "attacked", "certified") if row in found]
        ['clean', 'attacked', 'certified']
    """
    ball = registry.build(threat, "threat") if isinstance(threat, str) else threat
    if isinstance(model, Run) and ball is None and certify is None and plan is None:
        return outcome(follow(model, report))
    with tempfile.TemporaryDirectory() as scratch:
        target = _target(model, images, labels, Path(out or Path(scratch) / "run"))
        known = target.recipe.get("evaluation", {})
        default = Plan.model_validate({key: known[key] for key in Plan.model_fields if key in known})
        wanted = planned(target, ball, plan or default, certificates=certify)
        found = outcome(carried_out(target, wanted, report))
        kept = isinstance(model, Run | Subject) or out is not None
        return found if kept else replace(found, path=None)


def _target(
    model: nn.Module | Subject | Run, images: Images | None, labels: Images | Sequence[int] | None, out: Path
) -> Subject:
    if isinstance(model, Run | Subject):
        if images is not None or labels is not None:
            raise HauberkError("a run already names its images", "leave images and labels out")
        return subject(model.path) if isinstance(model, Run) else model
    if images is None or labels is None:
        raise HauberkError("evaluate needs images and their labels", "for example hauberk.evaluate(model, x, y)")
    dataset = of_arrays(_array(images), _array(labels), _outputs(model))
    about = {"name": dataset.name, "images": len(dataset.test), "shape": list(dataset.input_shape)}
    recipe = {"name": type(model).__name__, "data": about, "model": {"class": type(model).__qualname__}}
    run = Run(out)
    run.check(recipe)
    return Subject(run, model, dataset, recipe)


def _array(values: Any) -> np.ndarray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    held = values.detach().cpu()
    return (held.float() if held.dtype == torch.bfloat16 else held).numpy()  # numpy has no bfloat16


def _outputs(model: nn.Module) -> Any:
    """A function that says how many logits a model gives on some images, 0 where it cannot be called."""

    def asked(images: Tensor) -> int:
        try:
            with torch.no_grad():
                return int(model(images.to(device_of(model))).shape[1])
        except Exception:  # the check says why
            return 0

    return asked
