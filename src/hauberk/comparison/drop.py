"""Has a share fallen, on the same images, by more than is tolerated?"""

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
    """A change and what is beyond doubt of it.

    Args:
        verdict: ``fail`` if a drop of more than ``tolerated`` is beyond doubt; ``cannot tell`` if it is not, and a
            drop of ``unseen`` more is not excluded either.
        change: of the share, the new one less the old one, with the two one-sided limits as its ends.
        lost: images that counted and count no more.
        won: images that count now and did not before.
    """

    verdict: Verdict
    change: Interval
    lost: int
    won: int


def dropped(
    new: ArrayLike, old: ArrayLike, tolerated: float = 0.0, unseen: float = 0.05, alpha: float = ALPHA
) -> Drop:
    r"""Compare two shares on the same images.

    Without a tolerated drop the alarm is McNemar's exact test to one side, :math:`P(\mathrm{Bin}(l + w, 1/2) \ge l)
    \le \alpha` with l images lost and w won: no drop gives an alarm with probability at most alpha, whatever the
    discordance.  With one it is Tango's one-sided upper limit, which is approximate.

    Args:
        new: whether each image counts now, shape (N,).
        old: whether it did before, row i about the same image.
        tolerated: the drop that is allowed, as a share.
        unseen: what a drop may exceed that by and be missed; else there are too few images to tell.
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
