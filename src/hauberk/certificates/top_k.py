r"""Guarantees about several classes at once, from the evidence of a Lipschitz certificate.

All of them are statements about logits z and Lipschitz constants K of their differences, the evidence
(``LogitMargins``) that ``LipschitzCertificate`` gathers and a record keeps: :math:`z_j - z_i` cannot change its sign
within :math:`(z_j - z_i) / K_{ji}`.  Like that certificate they fail closed: ties, NaN and a model that decides
otherwise in its own precision give radius 0; radii are rounded down.  Classes are told apart by their index and never
by the value of their logit, so that ties are seen: the published code for top-k networks compares values, and can take
a rival with an equal logit for a member of the set.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from hauberk.certificates.base import round_down
from hauberk.certificates.evidence import LogitMargins
from hauberk.certificates.lipschitz import LipschitzCertificate, reach
from hauberk.classifier import ABSTAIN
from hauberk.errors import HauberkError

Array = NDArray[np.float64]


def top_k_radius(seen: LogitMargins, k: int) -> float:
    r"""The set :math:`F^k` of the k largest logits stays what it is at every point closer than this.

    .. math:: r = \min_{j \in F^k,\ i \notin F^k} \frac{z_j - z_i}{K_{ji}}

    The order within the set may change.  For k = 1 it is the radius of ``LipschitzCertificate``.

    Args:
        seen: K logits and the Lipschitz constants of their differences, logits per pixel unit.
        k: from 1 to K - 1.

    Returns:
        pixel units, rounded down; 0 where nothing is proved.

    Raises:
        HauberkError: if k is out of range.

    Source: Leino & Fredrikson 2021 (top-k robustness), as a radius.
    """
    return top_k_radii(seen, k)[-1]


def top_k_radii(seen: LogitMargins, most: int) -> list[float]:
    """``top_k_radius`` for k = 1 ... ``most``."""
    _check_k(most, len(seen.logits))
    found = _reach(seen)
    if found is None:
        return [0.0] * most
    order, distances = found
    return [round_down(float(distances[np.ix_(order[:k], order[k:])].min())) for k in range(1, most + 1)]


def stays_in_top_k(seen: LogitMargins, label: int, k: int) -> float:
    r"""A class is one of the k largest logits at every point closer than this.

    To push y out, k rivals must be level with it or ahead at one point, so the k-th nearest of them must have come up:

    .. math:: r = \text{the } k\text{-th smallest of } \frac{z_y - z_i}{K_{yi}}, \quad i \ne y

    It is never below ``top_k_radius`` of a set that holds the class, which guarantees more.  With k = 1 it is the
    radius of ``LipschitzCertificate`` if the class is the predicted one, and 0 otherwise.

    Args:
        seen: as in ``top_k_radius``.
        label: the class y.
        k: from 1 to K - 1.

    Returns:
        pixel units, rounded down; 0 where nothing is proved.

    Raises:
        HauberkError: if k or the label is out of range.
    """
    classes = len(seen.logits)
    _check_k(k, classes)
    if not 0 <= label < classes:
        raise HauberkError(f"expected a class in 0..{classes - 1}, got {label}", "count classes from 0")
    found = _reach(seen)
    if found is None:
        return 0.0
    nearest = np.sort(np.delete(found[1][label], label))[:k]
    # rivals that never come up are infinitely far: the farthest of the others is proved as well, and a number
    return round_down(float(nearest[np.isfinite(nearest)].max(initial=0.0)))


def relaxed_guarantees(seen: LogitMargins, radius: float, most: int) -> list[int]:
    """All k up to ``most`` whose set of k largest logits stays what it is at every point closer than the radius."""
    return [k for k, r in enumerate(top_k_radii(seen, most), 1) if r >= radius and r > 0.0]


def relaxed_top_k_radius(seen: LogitMargins, most: int) -> float:
    """Some set of the k largest logits, k up to ``most``, stays what it is at every point closer than this (RtK).

    Source: Leino & Fredrikson 2021 (relaxed top-k robustness), as a radius.
    """
    return max(top_k_radii(seen, most))


def affinity_radius(seen: LogitMargins, sets: Sequence[Collection[int]]) -> float:
    r"""Some set of the k largest logits stays what it is within this radius, and lies in one of the declared sets.

    .. math:: r = \max_k r_k, \qquad r_k = -\infty \text{ unless } F^k \subseteq S \text{ for some declared } S

    so that the predicted class stays in that set whatever an adversary does within the radius.

    Args:
        seen: as in ``top_k_radius``.
        sets: sets of classes that may be mistaken for each other.  A class in none of them is never certified.

    Returns:
        pixel units, rounded down; 0 where nothing is proved.

    Raises:
        HauberkError: if there are no sets, or a set names a class that does not exist.

    Source: Leino & Fredrikson 2021 (affinity robustness), as a radius.
    """
    classes = len(seen.logits)
    if not sets or not set().union(*sets) <= set(range(classes)):
        raise HauberkError(
            f"expected sets of classes, each class in 0..{classes - 1}, got {list(sets)}", "for example [(3, 5)]"
        )
    most = min(max(len(set(members)) for members in sets), classes - 1)
    found = _reach(seen)
    if most < 1 or found is None:
        return 0.0
    kin = [any(set(found[0][:k].tolist()) <= set(members) for members in sets) for k in range(1, most + 1)]
    return max((r for r, own in zip(top_k_radii(seen, most), kin, strict=True) if own), default=0.0)


def _check_k(k: int, classes: int) -> None:
    if not 1 <= k < classes:
        raise HauberkError(f"expected k in 1..{classes - 1}, got {k}", "the set of all classes never changes")


def _reach(seen: LogitMargins) -> tuple[NDArray[np.intp], Array] | None:
    r"""Classes from the largest logit down, and :math:`(z_j - z_i) / K_{ji}` for all pairs; None if nothing is known.

    The gap is lessened by what rounding may have added to it.  A pair that never moves is infinitely far apart, unless
    it is level; ``round_down`` then makes 0 of infinity, for any radius is sound and none is useful.  Where the speed
    is NaN nothing is known and the pair counts as level.
    """
    if LipschitzCertificate().decision(seen) == ABSTAIN:
        return None
    logits = np.asarray(seen.logits, dtype=np.float64)
    with np.errstate(over="ignore"):
        gaps = logits[:, None] - logits[None, :] - seen.lost
    return np.argsort(-logits, kind="stable"), reach(gaps, seen.constants.pairwise)
