"""A report's facts about one predictor, as plain typed values without tensors or files.

An upper bound (attacked), a lower bound (certified) and an estimate are different things and stay apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hauberk.errors import HauberkError
from hauberk.evaluation.by_class import ByClass
from hauberk.evaluation.metrics import ConfidenceGaps, RandomAccuracy
from hauberk.report.random_facts import NO_RANDOM, RandomFacts
from hauberk.statistics import Interval


@dataclass(frozen=True)
class Method:
    """One attack at one budget.

    Args:
        name: its registered name.
        settings: its other fields.
        seed: seed of the evaluation.
        accuracy: robust accuracy over the images that this attack saw.
        success_rate: share of the images right before any attack that it broke.
        perturbation: median distance of its successes on images that were right.
        forwards: forward passes an image, mean.
        backwards: backward passes an image, mean.
        nearest: median distance to the nearest misclassified point over the images that were right, infinite if none
            was found; None for attacks that do not look for it.
        suite: the sequence it is a stage of, for example ``autoattack standard``, or empty.
        stage: its number in that sequence; a later stage sees only the survivors of the earlier stages.
    """

    name: str
    settings: Mapping[str, Any]
    seed: int
    accuracy: Interval
    success_rate: Interval
    perturbation: Interval
    forwards: float
    backwards: float
    nearest: Interval | None = None
    suite: str = ""
    stage: int = 0


@dataclass(frozen=True)
class Attacked:
    """All attacks of one predictor at one budget, the worst case of each image: an upper bound on robust accuracy.

    Args:
        predictor: the attacked predictor.
        norm: norm of the budget.
        eps: the budget, pixel units.
        accuracy: share of images that no attack broke.
        success_rate: share of the images right before any attack that some attack broke.
        boundary_error: share of all images that were right and that some attack broke.
        methods: the attacks.
        images: a hash of the image ids, which distinguishes numbers about other images.
        gaps: the confidence of the model in right and in wrong answers, before and after the attacks.
        random: for a random model, the accuracy of fresh draws at the images and after the attacks; else None.
        by_class: the accuracy of each class, and the answers for broken images.
        draws: for a random model, the sweep over draws, repeated queries and transfer between draws.
    """

    predictor: str
    norm: str
    eps: float
    accuracy: Interval
    success_rate: Interval
    boundary_error: Interval
    methods: tuple[Method, ...]
    images: str
    gaps: ConfidenceGaps | None = None
    random: tuple[RandomAccuracy, RandomAccuracy] | None = None
    by_class: ByClass | None = None
    draws: RandomFacts = NO_RANDOM


@dataclass(frozen=True)
class Reached:
    """Attacks towards one class, the best case of each image.

    Args:
        target: the class.
        norm: norm of the budget.
        eps: the budget, pixel units.
        rate: share of the images with another label that became this class.
        attacks: names of the attacks.
        white: the level that stands for 1, if points had whole levels; else None.
    """

    target: int
    norm: str
    eps: float
    rate: Interval
    attacks: tuple[str, ...]
    white: int | None = None


@dataclass(frozen=True)
class HalfBroken:
    """The budget within which half of the images that were right are broken; an upper bound, found by attacks.

    Args:
        norm: norm of the distances.
        eps50: the median distance of the nearest error found, infinite if too many images stand.
        standing: number of images that were right and that no search broke at any distance.
        attacks: the minimum-norm attacks that searched.
    """

    norm: str
    eps50: Interval
    standing: int
    attacks: tuple[str, ...]


@dataclass(frozen=True)
class Level:
    """Accuracy at one budget."""

    eps: float
    accuracy: Interval


@dataclass(frozen=True)
class Curve:
    """Accuracy against radius for one predictor and one certificate: a lower bound unless it is an estimate.

    Args:
        predictor: the predictor whose decisions are certified.
        norm: norm of the radii.
        method: the certificate's name.
        settings: its other fields.
        seed: seed of the evaluation.
        proof: ``deterministic``, ``probabilistic``, ``estimate``, or ``log`` for a log that is taken on trust.
        failure_probability: failure probability of one image; 0 if deterministic, NaN if a log does not state it.
        right: share of images decided and right, at radius 0.
        abstained: share of images without a decision.
        mean_radius: mean over all images, in which wrong and abstained images count 0.
        steps: each accuracy holds above its ``eps`` and up to the next one, the end included; exact unless ``thinned``.
        levels: the accuracy at the attacked budgets and at a few round ones.
        balanced: the mean of the classes' accuracies at the same radii.
        images: a hash of the image ids.
        thinned: whether there are fewer steps than radii; the steps then lie below the exact curve, never above it.
        frozen: whether a deterministic proof is about the frozen predictor, and not about weights made in float64.
    """

    predictor: str
    norm: str
    method: str
    settings: Mapping[str, Any]
    seed: int
    proof: str
    failure_probability: float
    right: Interval
    abstained: Interval
    mean_radius: Interval
    steps: tuple[Level, ...]
    levels: tuple[Level, ...]
    images: str
    thinned: bool
    frozen: bool = False
    balanced: tuple[Level, ...] = ()

    def at(self, eps: float) -> Interval:
        """Accuracy at that radius: exact at the levels; thinned steps elsewhere may lie below it, never above it."""
        known = [level.accuracy for level in self.levels if level.eps == eps]
        reached = [step.accuracy for step in self.steps if step.eps < eps]
        return known[0] if known else reached[-1] if reached else self.steps[0].accuracy


@dataclass(frozen=True)
class Contradiction:
    """Images certified at a radius and yet broken within it; a deterministic proof allows none.

    Args:
        norm: norm of the attacks and of the certificate.
        method: the certificate.
        proof: its kind.
        compared: images that have both an attack and a certificate.
        found: how many of them contradict each other.
    """

    norm: str
    method: str
    proof: str
    compared: int
    found: int


@dataclass(frozen=True)
class Finding:
    """One check of an evaluation: the measured value, the limit for a sound evaluation, the verdict and its reason."""

    name: str
    value: float
    threshold: float
    verdict: str
    reason: str


@dataclass(frozen=True)
class Judgement:
    """Whether the failures of an attack can be believed.

    Args:
        attack: the attack that was judged.
        norm: norm of its budget.
        eps: the budget, pixel units.
        verdict: the worst verdict of the checks: ``sound``, ``questionable`` or ``broken``.
        findings: the checks, the worst first.
        images: how many images the checks used.
    """

    attack: str
    norm: str
    eps: float
    verdict: str
    findings: tuple[Finding, ...]
    images: int


@dataclass(frozen=True)
class Subject:
    """The facts about one predictor on one split; ``notes`` holds remarks on its records.

    ``on_grid`` holds the attacks whose points have whole levels, by the level that stands for 1.  ``reached`` holds the
    attacks towards a class.  Both are bounds of their own, and ``attacked`` is about the other attacks.
    """

    predictor: str
    dataset: str
    split: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    stochastic: bool
    weights: tuple[str, ...]
    clean: Interval
    clean_source: str
    attacked: tuple[Attacked, ...]
    certified: tuple[Curve, ...]
    estimated: tuple[Curve, ...]
    checks: tuple[Contradiction, ...]
    judgements: tuple[Judgement, ...] = ()
    notes: tuple[str, ...] = ()
    by_class: ByClass | None = None
    on_grid: tuple[tuple[int, tuple[Attacked, ...]], ...] = ()
    reached: tuple[Reached, ...] = ()
    half_broken: tuple[HalfBroken, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """The predictor, data set and split that the records are about."""
        return self.predictor, self.dataset, self.split

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms of attacks and certificates, in order of appearance."""
        return tuple(dict.fromkeys([a.norm for a in self.attacked] + [c.norm for c in self.certified]))

    @property
    def headline(self) -> Attacked | None:
        """The attacks of the headline: a suite first, then most methods, then most images; the middle one of equals."""
        if not self.attacked:
            return None
        most = max(map(_effort, self.attacked))
        equals = [a for a in self.attacked if _effort(a) == most]
        first = [a for a in equals if a.norm == equals[0].norm]
        return first[(len(first) - 1) // 2]

    @property
    def beside(self) -> Attacked | None:
        """The attacks in another norm than the headline's: by most methods, at the smallest budget."""
        others = [a for a in self.attacked if self.headline is not None and a.norm != self.headline.norm]
        return max(others, key=lambda a: (*_effort(a), -a.eps), default=None)

    def curve(self, norm: str) -> Curve | None:
        """The certificate shown beside attacks in that norm."""
        own = [c for c in self.certified if c.norm == norm]
        return max(own, key=lambda c: preference(c.proof, c.settings, c.seed), default=None)


def preference(proof: str, settings: Mapping[str, Any], seed: int) -> tuple[bool, bool, int, int]:
    """Rank of a certificate among several in one norm: deterministic first, then most votes, then lowest seed.

    A certificate that stopped at a goal comes after the others of its kind: it shows whether images reach that radius
    and little about larger radii, and its n is a ceiling.  The order does not depend on the radii, because choosing the
    best of several seeds would be a selection on test images.
    """
    inner = settings.get("base", settings)
    return proof == "deterministic", inner.get("goal") is None, int(inner.get("n", 0)), -seed


def one_axis(rows: Iterable[Attacked | Curve]) -> tuple[str, str]:
    """The predictor and norm that all rows share; rows that are drawn on one axis are checked here first.

    Raises:
        HauberkError: if they differ, if there are no rows, or if estimates stand among other rows.
    """
    items = list(rows)
    kinds = {(x.predictor, x.norm) for x in items}
    if len(kinds) != 1:
        listed = "; ".join(f"{p} in {n}" for p, n in sorted(kinds)) or "none"
        raise HauberkError(f"expected rows of one predictor and one norm, got {listed}", "draw each on axes of its own")
    if len({isinstance(x, Curve) and x.proof == "estimate" for x in items}) > 1:
        raise HauberkError(
            "an estimate cannot share an axis with measured or certified rows", "draw it on axes of its own"
        )
    return next(iter(kinds))


def _effort(attacked: Attacked) -> tuple[bool, int, int]:
    """The effort of the attacks; a suite counts first, since it needs no other attack once every image is broken."""
    return any(m.suite for m in attacked.methods), len(attacked.methods), attacked.accuracy.n
