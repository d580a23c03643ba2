"""A report's facts about attacks on a random model, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from hauberk.statistics import Interval


@dataclass(frozen=True)
class SweepStage:
    """One stage of a sweep.

    Args:
        draws: number of draws for one gradient.
        steps: number of steps of its search.
        mean: what is averaged: ``loss`` or ``logits``.
        accuracy: accuracy over all images after this stage and the stages before it.
        fallen: number of images that were right before any attack and fell in this stage.
    """

    draws: int
    steps: int
    mean: str
    accuracy: Interval
    fallen: int


@dataclass(frozen=True)
class Sweep:
    """A sweep over draws and steps.

    Args:
        stages: in order.
        settled: whether the accuracy had stopped falling, by the rule of the sweep, or no image was left.
    """

    stages: tuple[SweepStage, ...]
    settled: bool


@dataclass(frozen=True)
class Repeated:
    """The chance that all N tries of one point are classified right.

    Args:
        tries: N.
        clean: the chance at the images, as a control.
        attacked: the chance at the points that attacks returned.
    """

    tries: int
    clean: Interval
    attacked: Interval


@dataclass(frozen=True)
class Transferred:
    """An attack on fixed draws whose points are tried on fresh draws: a diagnostic of the noise, not a strong attack.

    Args:
        draws: number of fixed draws.
        own: of the images that were right, the share that the fixed draws get wrong at some point seen.
        carried: the share whose point is wrong for the predictor, on fresh draws.
        single: the share of single fresh draws that are wrong at the points.
    """

    draws: int
    own: Interval
    carried: Interval
    single: Interval


@dataclass(frozen=True)
class RandomFacts:
    """All facts about a random model at one budget; a fact that was not measured is empty.

    Args:
        sweep: accuracy with growing numbers of draws and steps.
        repeated: chances of several tries.
        transferred: attacks on fixed draws.
        missed: of the images that both saw, the share that AutoAttack ``rand`` leaves standing and the sweep breaks.
    """

    sweep: Sweep | None = None
    repeated: tuple[Repeated, ...] = ()
    transferred: tuple[Transferred, ...] = ()
    missed: Interval | None = None


NO_RANDOM = RandomFacts()
