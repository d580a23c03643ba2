"""Checks that judge the evaluation itself: whether the attack is strong enough for its failures to mean robustness.

An attack gives an upper bound on robustness, and a weak attack a useless one.  The symptoms of a weak attack are known:
Carlini et al. 2019 (On evaluating adversarial robustness), Pintor et al. 2022 (Indicators of attack failure, here
I1 to I6), Zimmermann et al. 2022 (Increasing confidence in adversarial robustness evaluations) and the flags of
Croce & Hein 2020.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import log2
from typing import Any

import torch
from pydantic.dataclasses import dataclass as configured
from torch import Tensor, nn

from hauberk.attacks import APGD, FGSM, PGD, Attack, AttackResult, Query
from hauberk.attacks.gradients import EOT_DRAWS, attackable, behind_a_fence
from hauberk.attacks.judging import answered
from hauberk.batch import Batch
from hauberk.boundary import called
from hauberk.classifier import TILE, Decides, check_classifier, decide, frozen
from hauberk.errors import HauberkError
from hauberk.evaluation import indicators, random_checks
from hauberk.evaluation.binarisation import GUESSES, INNER, binarise, border_point
from hauberk.evaluation.indicators import ORDER, Check, Subject, Verdict, grade
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Threat

__all__ = ["Check", "Diagnosis", "cost", "diagnose"]

VERSION = 3  # raised when a verdict changes
QUERIES = 300
RANDOM_POINTS = 100
BUDGETS = 4
SWEEP_STEPS = 30
STRONG_STEPS = 100
GREY = 0.5  # Linf distance at which every image can become uniformly grey


@dataclass(frozen=True)
class Diagnosis:
    """The joint result of the checks.

    Args:
        checks: one row each.
    """

    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of all checks."""
        return max((c.verdict for c in self.checks), key=ORDER.index, default="sound")

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence for each check that is not sound, the worst first."""
        bad = [c for c in self.checks if c.verdict != "sound"]
        return tuple(c.reason for c in sorted(bad, key=lambda c: -ORDER.index(c.verdict)))


def cost(steps: int = 100, random: bool = False) -> int:
    """Most forward and backward passes an image that a diagnosis with the default attack takes, each counted as one.

    Not counted are the few passes of single images that probe an undeclared model for randomness.

    Args:
        steps: of the attack.
        random: whether the model is random, so that each value averages ``EOT_DRAWS`` draws.
    """
    around = 7  # the contract's checks, the image, the verdict on what was found, and a far point
    look = 4 + 6 * 2 + 2 * 2 + 2 + 2 * (1 + indicators.DIRECTIONS) + 1 + indicators.NEIGHBOURS
    walks = [steps, 2 * steps, STRONG_STEPS, 1, *[min(steps, SWEEP_STEPS)] * BUDGETS]
    if random:
        walks += [random_checks.PLAIN_STEPS] * 2 + [max(1, steps // 4), steps * random_checks.MORE // EOT_DRAWS]
        look += random_checks.DRAWS + 12 * EOT_DRAWS  # the choice among points, and the vote on them
    attacks = sum(around + 2 * (n + 1) for n in walks)
    guesses = 2 * around + QUERIES + RANDOM_POINTS
    planted = INNER + GUESSES + around + 2 * (steps + 1) + 4
    return look + (attacks + guesses) * (EOT_DRAWS if random else 1) + (0 if random else planted)


def diagnose(
    model: nn.Module,
    batch: Batch,
    threat: Threat,
    *,
    seed: int = 0,
    tile: int = TILE,
    steps: int = 100,
    attack: Attack | None = None,
    surrogate: nn.Module | None = None,
) -> Diagnosis:
    """Judge an attack on a model: whether the images that it did not break can be counted as robust.

    Only rightly classified images count.  About 64 to 128 of them are enough; ``cost`` says what it takes.

    Args:
        model: a classifier in eval mode.
        batch: images in [0, 1], labels, ids.
        threat: of the evaluation.
        seed: with each id, the source of all randomness.
        tile: rows of a model call.
        steps: of the default attack.
        attack: the attack to judge; None is APGD on cross-entropy, in L1 PGD, whose step takes account of the box.
        surrogate: another classifier, to see whether points found on it break images that the attack missed.

    Raises:
        HauberkError: if model or batch break the classifier contract, no image is classified right, or a gradient is
            NaN or infinite.
    """
    check_classifier(model, batch)
    if attack is None:
        attack = (PGD if threat.norm == "l1" else APGD)(threat, steps=steps)
    if not isinstance(model, Decides) and not _has_graph(model, batch.images[:1]):
        model = _Connected(model)
    with frozen(model), attackable(model), behind_a_fence(model, seed), torch.no_grad():
        right = decide(model, batch, seed, tile) == batch.labels
        if not bool(right.any()):
            raise HauberkError("no image is classified correctly, so that no attack can be judged", "check the labels")
        subject = Subject(model, batch.select(right), threat, attack, seed, tile)
        return Diagnosis(tuple(_checks(subject, surrogate)))


def _checks(subject: Subject, surrogate: nn.Module | None) -> Iterator[Check]:
    """The checks of the model, then those of the attack."""
    first = indicators.randomness(subject)
    noisy = first.value > first.threshold
    unsure = noisy or isinstance(subject.model, Decides)
    yield first
    yield indicators.output_form(subject)
    yield indicators.zero_gradients(subject)
    if noisy and not isinstance(subject.model, Decides):
        yield random_checks.noise_check(subject)
    if not noisy:  # two gradients or values of noise cannot be compared
        yield indicators.vanishing_gradients(subject)
        yield indicators.wrong_gradients(subject)
        yield indicators.neighbourhood(subject)
    yield from _compare(subject, unsure, noisy, surrogate)
    if not unsure:  # else no point can be planted for certain
        yield _binarised(subject)


def _compare(subject: Subject, unsure: bool, noisy: bool, surrogate: nn.Module | None) -> Iterator[Check]:
    """The checks of the attack: what happened on its path, and who finds what it missed."""
    every = len(subject.batch)
    result, traces = _traced(subject)
    missed = ~result.success
    rest = replace(subject, batch=subject.batch.select(missed))
    if traces is not None:
        if not unsure:  # an error of one forward pass that a second draw, or the vote, does not repeat is none
            yield _silent(int((traces.misclassified & missed).sum()), every)
        yield _rising(traces.values[:, missed], every)
    drawn = noisy and not isinstance(subject.model, Decides)
    # another attack is another chance of an unlucky draw; of a random model that chance is measured and taken off
    worst: Verdict = "questionable" if unsure and not drawn else "broken"
    lucky = _lucky(rest, result.adversarial[missed]) if drawn and len(rest.batch) else 0
    rivals = _rivals(subject) | (random_checks.rivals(subject) if drawn else {})
    for name, (other, who, remedy) in rivals.items():
        found = int(_run(other, rest).success.sum()) if len(rest.batch) else 0
        seen = f"{who} breaks {found} of {every} images that the attack missed"
        seen += f", other draws alone {lucky}" if lucky else ""
        yield grade(name, max(0, found - lucky) / every, every, seen, remedy, worst)
    if drawn and _steps(subject.attack) > 1:
        yield _fewer_steps(subject, int(result.success.sum()))
    if surrogate is not None:
        yield _transferred(rest, every, surrogate)
    yield from _sweep(subject, 1.0 - int(result.success.sum()) / every, worst)


def _lucky(rest: Subject, points: Tensor) -> int:
    """How many images that the attack missed are wrong at the points it returned, when other draws vote."""
    there = Batch(points, rest.batch.labels, rest.batch.ids)
    asked = rest.attack.asked(EOT_DRAWS if rest.attack.eot is None else rest.attack.eot, True)
    _, _, said = answered(rest.model, there, asked, rest.tile, rest.seed + 1)
    return int((said != there.labels).sum())


def _fewer_steps(subject: Subject, broken: int) -> Check:
    """More steps must not raise the accuracy: a quarter of them breaks no more images."""
    every, steps = len(subject.batch), max(1, _steps(subject.attack) // 4)
    few = int(_run(_with(subject.attack, steps=steps), subject).success.sum())
    seen = f"with {steps} steps the attack breaks {few} of {every} images, with {_steps(subject.attack)} {broken}"
    value = max(0, few - broken) / every
    return grade("fewer_steps", value, every, seen, "the noise leads the attack away, so average over more draws")


def _run(attack: Attack, subject: Subject) -> AttackResult:
    return attack(subject.model, subject.batch, subject.seed, subject.tile)


# --- the attack's own path ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Traces:
    values: Tensor  # (calls, B), NaN where a row was not evaluated
    misclassified: Tensor  # (B,)


def _traced(subject: Subject) -> tuple[AttackResult, _Traces | None]:
    """The attack's result, and what its queries saw; None where it does not search by queries of its own."""
    attack, batch, queries, used = subject.attack, subject.batch, list[Query](), list[int]()

    def query(model: nn.Module, batch: Batch, tile: int = TILE, seed: int = 0) -> Query:
        queries.append(type(attack).query(attack, model, batch, tile, seed))
        queries[-1].history = []
        used.append(len(set(batch.ids.tolist())))  # the rest is padding, which repeats an image
        return queries[-1]

    traced = copy.copy(attack)
    object.__setattr__(traced, "query", query)
    result = traced(subject.model, batch, subject.seed, subject.tile)
    if sum(used) != len(batch) or not all(q.history for q in queries):
        return result, None
    calls = max(len(q.history or ()) for q in queries)
    columns = []
    for q, rows in zip(queries, used, strict=True):  # groups of images may have ended after fewer calls
        seen = torch.stack(q.history or [])[:, :rows]
        columns.append(torch.cat([seen, seen.new_full((calls - len(seen), seen.shape[1]), torch.nan)]))
    misclassified = torch.cat([q.misclassified[:rows] for q, rows in zip(queries, used, strict=True)])
    return result, _Traces(torch.cat(columns, 1), misclassified)


def _silent(count: int, every: int) -> Check:
    """Share of images whose adversarial point was seen and not returned (I3)."""
    seen = f"{count} of {every} images had an adversarial point on the attack's path that it did not return"
    return grade("silent_success", count / every, every, seen, "return the best point seen, not the last one")


def _rising(values: Tensor, every: int) -> Check:
    """Share of images whose best loss rose by more than 5 % of its whole rise in the last tenth of the calls (I4).

    Args:
        values: loss of the images that the attack missed, (calls, B).
        every: images in all.
    """
    best = values.nan_to_num(nan=-torch.inf).cummax(0).values
    late = best[-1] - best[-1 - max(1, round(0.1 * len(best)))] if len(best) > 1 else torch.zeros_like(values[0])
    share = int((late > 0.05 * (best[-1] - best[0])).sum()) / every
    seen = f"the loss still rises at the end of the attack on {share:.0%} of the images"
    return grade("rising_loss", share, every, seen, "use more steps, or a step size that shrinks")


# --- other attacks --------------------------------------------------------------------------------------------


@configured(frozen=True, config=CONFIG)
class _RandomPoints(Attack):
    """The worst of random points, by turns from the whole ball and from its border."""

    tries: int = RANDOM_POINTS

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        points = query.images
        for k in range(self.tries):
            draw = partial(border_point, self.threat) if k % 2 else self.threat.random_point
            points = draw(query.images, randomness)
            query.value(points)
        return points


def _rivals(subject: Subject) -> dict[str, tuple[Attack, str, str]]:
    """Attacks that should break nothing that the judged one missed: by the check's name, with words for it."""
    from hauberk.attacks.square import Square

    attack, threat = subject.attack, subject.threat
    rivals: dict[str, tuple[Attack, str, str]] = {
        "black_box": (Square(threat, queries=QUERIES), "Square", "gradients mislead the attack, so add Square to it"),
        "random_search": (_RandomPoints(threat), "the best random point", "gradients mislead the attack, so find why"),
        "single_step": (FGSM(threat, loss=subject.loss), "FGSM", "choose a step size that can reach the border"),
    }
    strong = (PGD if threat.norm == "l1" else APGD)(threat, loss="margin", steps=STRONG_STEPS)
    rivals["stronger_attack"] = (strong, f"{type(strong).__name__} on the margin", "add it to the evaluation")
    if _steps(attack):
        longer = _with(attack, steps=2 * _steps(attack))
        rivals["more_steps"] = (longer, "the same attack with twice the steps", "use more steps")
    return rivals


def _steps(attack: Attack) -> int:
    """Its number of steps, 0 for an attack that has none."""
    return int(getattr(attack, "steps", 0))


def _with(attack: Attack, **changes: Any) -> Attack:
    return replace(attack, **changes)


def _transferred(rest: Subject, every: int, surrogate: nn.Module) -> Check:
    """Share of all images that the attack missed and points found on another model break."""
    found = 0
    if len(rest.batch):
        points = _run(rest.attack, replace(rest, model=surrogate)).adversarial
        there = Batch(points, rest.batch.labels, rest.batch.ids)
        found = int((decide(rest.model, there, rest.seed, rest.tile) != there.labels).sum())
    seen = f"points found on the surrogate break {found} of {every} images that the attack missed"
    return grade("transfer", found / every, every, seen, "gradients mislead the attack, so attack the surrogate too")


def _sweep(subject: Subject, accuracy: float, worst: Verdict) -> Iterator[Check]:
    """Robust accuracy must fall with the budget, and to zero where nothing holds the attack back (I6)."""
    threat, every = subject.threat, len(subject.batch)
    pixels = subject.batch.images[0].numel()
    largest = GREY * {"linf": 1.0, "l2": pixels**0.5, "l1": float(pixels)}[threat.norm]
    if not 0.0 < threat.eps < largest:
        return
    budgets = [threat.eps * 2 ** (log2(largest / threat.eps) * k / BUDGETS) for k in range(1, BUDGETS + 1)]
    accuracies = [accuracy]
    for budget in budgets:
        accuracies.append(1.0 - int(_run(_rescaled(subject.attack, budget), subject).success.sum()) / every)
    rise = max(after - min(accuracies[: k + 1]) for k, after in enumerate(accuracies[1:]))
    seen = f"robust accuracy rises by {max(0.0, rise):.0%} when the budget grows"
    yield grade(
        "budget_sweep", max(0.0, rise), every, seen, "the attack loses its way in large balls, so find why", worst
    )
    seen = f"with a budget of {largest:.3g}, where every image can be made grey, {accuracies[-1]:.0%} survive"
    yield grade("unbounded", accuracies[-1], every, seen, "the attack fails where it must succeed, so change its loss")


def _rescaled(attack: Attack, budget: float) -> Attack:
    """The attack with another budget, few steps, and a fixed step size that grows with the budget."""
    changes: dict[str, Any] = {"threat": type(attack.threat)(budget)}
    if _steps(attack):
        changes["steps"] = min(_steps(attack), SWEEP_STEPS)
    if stages := getattr(attack, "attacks", ()):
        changes["attacks"] = tuple(_rescaled(stage, budget) for stage in stages)
    size = getattr(attack, "step_size", None)
    if isinstance(size, float):
        changes["step_size"] = size * budget / attack.threat.eps
    return _with(attack, **changes)


def _binarised(subject: Subject) -> Check:
    """Share of planted adversarial points that the attack finds (Zimmermann et al. 2022)."""
    test = binarise(subject.model, subject.batch, subject.threat, subject.attack, subject.seed, subject.tile)
    images = int(test.planted.sum())
    if images == 0:
        seen = "no adversarial point could be planted, for the features do not move within the ball"
        return grade("binarisation", 0.0, 0, seen, "look for a step that is constant there", "questionable")
    found, guessed = int(test.found.sum()) / images, int(test.guessed.sum()) / images
    seen = f"the attack finds {found:.0%} of the planted adversarial points, random guessing {guessed:.0%}"
    return grade("binarisation", found, images, seen, "an attack that misses what is there proves nothing")


# --- models without a graph -----------------------------------------------------------------------------------


class _Connected(nn.Module):
    """A model whose output does not depend on its input by autograd, with the zero gradient that this amounts to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits + 0.0 * images.flatten(1).sum(1, keepdim=True)


def _has_graph(model: nn.Module, images: Tensor) -> bool:
    with frozen(model), attackable(model), torch.enable_grad():
        return bool(called(model, images.detach().clone().requires_grad_(True)).requires_grad)
