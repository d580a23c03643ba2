r"""What edits can do to a vote over sub-samples of several modalities, in exact integers (MMCert, Wang et al. 2024).

An input is made of T modalities of :math:`n_i` elements.  The ensemble answers with the class that its base votes for
most often, over independent sub-samples of :math:`k_i` elements of each modality, drawn without replacement.  An
attacker edits every modality at once.  With :math:`n'_i` elements afterwards, :math:`e_i` of them untouched,

.. math:: D = \prod_i \binom{n_i}{k_i}, \quad D' = \prod_i \binom{n'_i}{k_i}, \quad E = \prod_i \binom{e_i}{k_i}

are the sub-samples before, after, and both.  Of a sub-samples that vote for the class before, at least
:math:`\max(0, a - D + E)` are still there; of b for a rival at most :math:`\min(b, E)` are, and all
:math:`D' - E` new ones may join it.  The class keeps its vote if

.. math:: \max(0, a - D + E) > \min(b, E) + D' - E .

This is the worst case, attained by some votes.  The ensemble is certified, not its base, and a tie is not certified.
The lecture's version is corrected in three places: it requires only :math:`\ge`, which a tie breaks; it takes
:math:`e_i = n_i - r_i` for additions, where all of the old elements remain; and it prints k' for k once.

Changes are the worst edits.  With :math:`f(t) = \prod_i \binom{n_i + t_i}{k_i}`, s additions and r - s changes leave
:math:`D' = f(s)` and :math:`E = f(s - r)`, and since f is log-concave, :math:`E / D'` is no smaller than for r changes
alone, and neither is D'; deletions only take new sub-samples away.  So a class that is certified for r changes of each
modality keeps at least the same margin under any r edits of each, whatever their kinds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from hauberk.errors import HauberkError

Kind = Literal["change", "add", "delete"]
HOPELESS = Fraction(-1)  # a margin that holds of any two probabilities


@dataclass(frozen=True)
class Modality:
    """One modality, and the edits that it may meet.

    Args:
        elements: n, before the attack.
        kept: k, of a sub-sample.
        edits: r, elements that the attacker may edit at most.
        kind: ``change``, ``add`` or ``delete``; changes cover every mixture, see above.

    Raises:
        HauberkError: if there is no sub-sample of so many elements, or r is negative.
    """

    elements: int
    kept: int
    edits: int = 0
    kind: Kind = "change"

    def __post_init__(self) -> None:
        if not 1 <= self.kept <= self.elements:
            raise HauberkError(
                f"expected a sub-sample of 1 to {self.elements} elements, the size of the modality, got {self.kept}",
                "correct the number of kept elements",
            )
        if self.edits < 0:
            raise HauberkError(
                f"expected the number of edited elements to be 0 or more, got {self.edits}",
                "correct the number of edits",
            )

    @property
    def after(self) -> int:
        """n', elements after the attack."""
        return self.elements + {"change": 0, "add": self.edits, "delete": -self.edits}[self.kind]

    @property
    def untouched(self) -> int:
        r""":math:`e = \max(n, n') - r`, elements that were there before and still are."""
        return max(0, max(self.elements, self.after) - self.edits)


def least_margin(lower: Fraction, upper: Fraction, modalities: Sequence[Modality]) -> Fraction:
    r"""The smallest :math:`p'_A - p'_B` after the edits, for any rival B; above 0 the class is certified.

    .. math:: \frac{\max(0, a - D + E) - \min(b, E) - D' + E}{D'}, \quad
              a = \lceil D\,\underline{p_A} \rceil, \; b = \min(\lfloor D\,\overline{p_B} \rfloor, D - a)

    The vote of an ensemble is a whole number of sub-samples, hence the rounding.  The margin does not rise with r.

    Args:
        lower: a lower bound of the share of sub-samples that vote for the class, exactly.
        upper: an upper bound of the share of every other class, exactly.
        modalities: with the edits.

    Returns:
        the margin, -1 where an attack leaves too few elements for a sub-sample.
    """
    before, after, both = _sub_samples(modalities)
    if not after:
        return HOPELESS
    own = math.ceil(before * lower)
    rival = min(math.floor(before * upper), before - own)
    return Fraction(max(0, own - before + both) - min(rival, both) - after + both, after)


def _sub_samples(modalities: Sequence[Modality]) -> tuple[int, int, int]:
    """D before the edits, D' after them, and E that are there both times."""
    sizes = [(m.elements, max(0, m.after), m.untouched) for m in modalities]
    before, after, both = (
        math.prod(math.comb(n, m.kept) for n, m in zip(column, modalities, strict=True))
        for column in zip(*sizes, strict=True)
    )
    return before, after, both


def most_edits(lower: Fraction, upper: Fraction, modalities: Sequence[Modality], margin: Fraction = Fraction(0)) -> int:
    """The largest r such that up to r edits of every modality at once leave more than the margin.

    Args:
        lower: as ``least_margin``.
        upper: as ``least_margin``.
        modalities: their own numbers of edits do not count.
        margin: 0 or more.

    Returns:
        r, or -1 where even without edits there is no more than the margin.
    """

    def keeps(r: int) -> bool:
        return least_margin(lower, upper, [replace(m, edits=r) for m in modalities]) > margin

    if not keeps(0):
        return -1
    low, high = 0, 1
    while keeps(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def least_share(modalities: Sequence[Modality]) -> Fraction:
    r"""The smallest share of sub-samples that certifies a class if all others go to one rival; above 1 if none does.

    With :math:`b = D - a` the condition above is :math:`2 a > 2 D - 2 E + D'`.

    Args:
        modalities: with the edits.
    """
    before, after, both = _sub_samples(modalities)
    return Fraction((2 * before - 2 * both + after) // 2 + 1, before)


def lecture_certified(lower: Fraction, upper: Fraction, modalities: Sequence[Modality]) -> bool:
    r"""The lecture's condition, kept to compare: :math:`\ge`, and :math:`e_i = n_i - r_i` for additions too.

    .. math:: \frac{D}{D'}\Big(\underline{p_A} - 1 + \frac{E}{D}\Big) \ge
              \frac{D}{D'}\,\overline{p_B} + 1 - \frac{E}{D'}

    It accepts a tie, which is wrong wherever the ensemble breaks ties for the rival.
    """
    before, after, _ = _sub_samples(modalities)
    both = math.prod(math.comb(max(0, m.elements - m.edits), m.kept) for m in modalities)
    return after > 0 and before * (lower - 1) + both >= before * upper + after - both
