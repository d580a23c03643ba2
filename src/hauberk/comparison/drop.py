"""The test whether a share has fallen, on the same images, by more than is tolerated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hauberk.errors import HauberkError
from hauberk.statistics import Interval, paired_difference

Verdict = Literal["pass", "fail", "cannot tell"]
ALPHA = 0.05


@dataclass(frozen=True)
class Drop:
    """The change of a share and the verdict on it.

    Args:
        verdict: ``fail`` if a drop of more than ``tolerated`` is beyond doubt; ``cannot tell`` if it is not, and a
            drop of ``unseen`` more is not excluded either.
        change: the new share minus the old share, with the two one-sided limits as its ends.
        lost: number of images that counted before and do not count now.
        won: number of images that count now and did not count before.
    """

    verdict: Verdict
    change: Interval
    lost: int
    won: int


def dropped(
    new: ArrayLike, old: ArrayLike, tolerated: float = 0.0, unseen: float = 0.05, alpha: float = ALPHA
) -> Drop:
    r"""Compare two shares on the same images.

    Without a tolerated drop the alarm is McNemar's exact one-sided test, :math:`P(\mathrm{Bin}(l + w, 1/2) \ge l)
    \le \alpha` with l images lost and w won: if there is no drop, an alarm has probability at most alpha, whatever the
    discordance.  With a tolerated drop the alarm is Tango's one-sided upper limit, which is approximate.

    Args:
        new: whether each image counts now, shape (N,).
        old: whether each image counted before; row i is about the same image.
        tolerated: the drop that is allowed, as a share.
        unseen: how far a missed drop may exceed ``tolerated``; if more is not excluded, there are too few images.
        alpha: probability of a false alarm.

    Raises:
        HauberkError: if the lengths differ or a number is out of its range.

    Reference: McNemar 1947; Tango 1998.
    """
    if not (0.0 <= tolerated < 1.0 and 0.0 < unseen <= 1.0):
        raise HauberkError(f"expected a tolerated drop in [0, 1) and an undetected excess in (0, 1], got "
                           f"{tolerated} and {unseen}", "for example 0.01 and 0.05")  # fmt: skip
    change, p = paired_difference(new, old, 1.0 - 2.0 * alpha)
    lost, won = _discordant(new, old)
    fallen = (lost > won and p <= 2.0 * alpha) if tolerated == 0.0 else change.high < -tolerated
    if fallen:
        return Drop("fail", change, lost, won)
    return Drop("pass" if change.low > -(tolerated + unseen) else "cannot tell", change, lost, won)


def _discordant(new: ArrayLike, old: ArrayLike) -> tuple[int, int]:
    now, before = np.asarray(new, dtype=np.bool_), np.asarray(old, dtype=np.bool_)
    return int((before & ~now).sum()), int((now & ~before).sum())
