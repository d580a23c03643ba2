"""The search for the settings of MixedNUTS, on logits of validation images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import ArrayLike

from hauberk.certificates.mixed import needed_alpha
from hauberk.defences.mixed_nuts import normalise, sharpen
from hauberk.errors import HauberkError
from hauberk.evaluation.alpha_steps import Floats, Labels, enough_of, kept_by, leads, margin, softmax, tables
from hauberk.statistics import Interval, wilson

ROUNDS = 4  # refinements of the grid
CUTOFFS = (1e-5, 0.9)  # beyond, alpha is 1 or every margin is to rounding, and a slightly stronger attack breaks all


@dataclass(frozen=True)
class Nuts:
    """Settings of ``hauberk.defences.mixed_nuts`` and the trade-off that they predict.

    Args:
        scale: s.
        shift: c.
        power: p.
        alpha: weight of the robust model.
        surrogate_alpha: the weight with the same promise without any map, for the surrogate that attacks follow.
        lost: share of the robust model's clean errors that the accurate model cannot correct; 0 where it makes none.
        clean_accuracy: of the mix.
        estimated_robust_accuracy: of the mix, see ``alpha_for_robust``.
        n: images.
    """

    scale: float
    shift: float
    power: float
    alpha: float
    surrogate_alpha: float
    lost: float
    clean_accuracy: Interval
    estimated_robust_accuracy: Interval
    n: int


@dataclass(frozen=True)
class _Rows:
    """Normalised logits of the images that the search looks at, and their labels."""

    kept: torch.Tensor  # right under attack
    kept_labels: Labels
    wrong: torch.Tensor  # wrong on the clean image
    wrong_labels: Labels
    needed: int  # how many of the kept must stay
    as_printed: bool


def nuts(
    accurate: ArrayLike,
    robust: ArrayLike,
    attacked: ArrayLike,
    labels: ArrayLike,
    beta: float = 0.985,
    *,
    top_k: int = 250,
    as_printed: bool = False,
) -> Nuts:
    r"""The (s, c, p) of MixedNUTS: map the robust model's logits so that its errors are easy to correct.

    For each setting the cutoff is the margin that a share :math:`\beta` of the images right under attack keeps, and
    :math:`\alpha = 1/(1 + \mathrm{cutoff})`.  The setting is best that leaves the fewest clean errors with
    :math:`\max_j p_j - p_y` at the cutoff or above, which not even a one-hot accurate model overrules; of several, the
    one whose errors are smallest beside the cutoff, on average.  Cutoffs are kept between 1e-5 and 0.9.  A coarse grid
    is refined around its best point.

    Of two classes no map is searched for.  The mix answers with the robust model's class where its probability margin
    exceeds :math:`(1-\alpha)/\alpha`, else with the accurate model's, and that margin rises with the gap
    :math:`|h_1 - h_0|` under every monotone odd map: all of them have the same decisions, those of a threshold
    :math:`\tau` on the gap.  Taken is the map that is linear in the gap (p = 1, c = 0, for
    :math:`\mathrm{GELU}(t) - \mathrm{GELU}(-t) = t`) with the cutoff 1/2 at :math:`\tau`, :math:`s = 2 \ln 3 / \tau`.

    Args:
        accurate: logits of the accurate model at clean validation images, (N, K).
        robust: logits of the robust model there, (N, K).
        attacked: logits of the robust model at its points of smallest probability margin, (N, K).
        labels: (N,).
        beta: share of the images right under attack that have to stay, in (0, 1].
        top_k: see ``hauberk.defences.mixed_nuts.normalise``.
        as_printed: judge an error by the gap of its two largest probabilities, as the paper does.  That gap is never
            larger than :math:`\max_j p_j - p_y`, so it counts errors as correctable whose label comes third.

    Raises:
        HauberkError: if the robust model is never right under attack, or no setting keeps enough.

    Reference: Bai, Zhou, Patel & Sojoudi 2024 (MixedNUTS).
    """
    y, g, h, worst = tables("logits", labels, accurate, robust, attacked)
    raw = margin(softmax(worst), y)
    still, wrong = raw > 0.0, leads(h, y).min(1) <= 0.0
    if not still.any():
        raise HauberkError(
            "the robust model classifies no image correctly under attack", "use a more robust model"
        )
    clean, bent = (normalise(torch.from_numpy(z), top_k) for z in (h, worst))
    needed = enough_of(beta, int(still.sum()))
    rows = _Rows(bent[still], y[still], clean[wrong], y[wrong], needed, as_printed)
    setting = _search(rows)
    scale, shift, power = setting
    lost, _, cutoff = (float(v[0]) for v in _trade(rows, np.array([scale]), shift, power))
    alpha = needed_alpha(cutoff)
    mapped = softmax(sharpen(clean, *setting).numpy())
    one_hot = np.eye(h.shape[1])[g.argmax(1)]
    right = int((leads((1.0 - alpha) * one_hot + alpha * mapped, y) > 0.0).all(1).sum())
    kept = kept_by(margin(softmax(sharpen(bent, *setting).numpy()), y), alpha)
    plain = min(1.0 - CUTOFFS[0], needed_alpha(float(np.sort(raw[still])[::-1][needed - 1])))
    return Nuts(scale, shift, power, alpha, plain, lost, wilson(right, len(y)), wilson(kept, len(y)), len(y))


def _search(rows: _Rows) -> tuple[float, float, float]:
    """The best (s, c, p): a coarse grid, then finer ones around the best point so far."""
    if rows.kept.shape[1] == 2:
        gaps = np.sort(leads(rows.kept.numpy(), rows.kept_labels).min(1))[::-1]
        return 2.0 * np.log(3.0) / float(gaps[rows.needed - 1]), 0.0, 1.0
    axes = [np.linspace(np.log(0.02), np.log(20.0), 10), np.linspace(-2.5, 0.5, 9), np.linspace(1.0, 5.0, 9)]
    steps = [axis[1] - axis[0] for axis in axes]
    best = min(_candidates(rows, axes))
    if not np.isfinite(best[0]):
        raise HauberkError(
            "no setting of the map classifies enough images correctly under attack", "choose a smaller beta"
        )
    for _ in range(ROUNDS):
        steps = [step / 2 for step in steps]
        around = [value + step * np.array([-1.0, 0.0, 1.0]) for value, step in zip(best[2:], steps, strict=True)]
        best = min(best, *_candidates(rows, around))
    return float(np.exp(best[2])), best[3], best[4]


def _candidates(rows: _Rows, axes: list[Floats]) -> Iterator[tuple[float, float, float, float, float]]:
    """Share lost and mean size of errors, to be made small in this order, with log(s), c and p."""
    for shift, power in product(axes[1].tolist(), np.maximum(1.0, axes[2]).tolist()):
        lost, size, _ = _trade(rows, np.exp(axes[0]), shift, power)
        for values in zip(lost.tolist(), size.tolist(), axes[0].tolist(), strict=True):
            yield *values, shift, power


def _trade(rows: _Rows, factors: Floats, shift: float, power: float) -> tuple[Floats, Floats, Floats]:
    """For each scale: the share of clean errors that stay, infinite where the cutoff is out of bounds; their mean size
    in units of the cutoff, at most 1 each; the cutoff.
    """  # noqa: D205
    s = torch.from_numpy(factors)[:, None, None]
    kept, wrong = ((s * sharpen(z, 1.0, shift, power)).softmax(2).numpy() for z in (rows.kept, rows.wrong))
    margins = np.sort(np.stack([margin(p, rows.kept_labels) for p in kept]), axis=1)[:, ::-1]
    cutoff = margins[:, rows.needed - 1]
    if rows.as_printed:
        top = np.sort(wrong, axis=2)
        excess = top[:, :, -1] - top[:, :, -2]
    else:
        excess = -np.stack([leads(p, rows.wrong_labels).min(1) for p in wrong])
    if excess.shape[1] == 0:  # no error to correct
        excess = np.zeros((len(factors), 1))
    allowed = (cutoff >= CUTOFFS[0]) & (cutoff <= CUTOFFS[1])
    limit = np.where(allowed, cutoff, 1.0)[:, None]
    lost, size = (excess >= limit).mean(1), np.minimum(1.0, excess / limit).mean(1)
    return np.where(allowed, lost, np.inf), size, cutoff
