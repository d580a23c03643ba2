"""Learning-rate schedules as pure functions of the fraction of training that is done."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["one_cycle", "cosine", "piecewise", "constant"]


def scale(schedule: Schedule, progress: float, warmup: float = 0.0) -> float:
    r"""The learning rate at a moment of training, as a fraction of its peak.

    Every schedule rises linearly, :math:`t/w`, while :math:`t < w`.  After that, with :math:`s = (t-w)/(1-w)`:
    ``one_cycle`` falls linearly, :math:`1 - s`; ``cosine`` falls as :math:`(1 + \cos \pi s)/2`; ``constant`` stays
    at 1.  ``piecewise`` is 1, then 1/10 from t = 1/2 and 1/100 from t = 3/4 on (Rice et al. 2020, Section 3).

    Args:
        schedule: which one.
        progress: t, the fraction of all optimiser steps done, in [0, 1].
        warmup: w, the fraction of training spent rising, in [0, 1).

    Returns:
        a number in [0, 1].
    """
    if progress < warmup:
        return progress / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "piecewise":
        return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
    rest = (progress - warmup) / (1.0 - warmup)
    return 1.0 - rest if schedule == "one_cycle" else 0.5 * (1.0 + math.cos(math.pi * rest))


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int, warmup: float = 0.0) -> float:
    """The learning rate of one optimiser step, taken at the step's middle, so that it is never zero.

    Args:
        schedule: which one.
        peak: the largest learning rate.
        step: the step, from 0.
        steps: the number of all steps.
        warmup: the fraction of training spent rising, in [0, 1).
    """
    return peak * scale(schedule, (step + 0.5) / steps, warmup)
