"""Choosing a mix on validation data: weights, scales and the settings of MixedNUTS, from saved arrays only.

Every result states its prediction and the number of images. Predictions are about the images on which they were chosen,
so they are slightly optimistic; report the results on the test split.  Robust accuracies here are estimates: they treat
the worst points that an attack found as the worst that exist (see ``alpha_for_robust``), and certify nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hauberk.certificates.mixed import needed_alpha
from hauberk.errors import HauberkError
from hauberk.evaluation.alpha_steps import (
    enough_of,
    kept_by,
    largest,
    margin,
    margins_of,
    most,
    right_intervals,
    sigmoids_of,
    softmax,
    tables,
)
from hauberk.evaluation.metrics import ConfidenceGaps, confidence_gaps
from hauberk.evaluation.nuts import Nuts, nuts
from hauberk.statistics import Interval, wilson

__all__ = [
    "AlphaRange", "CleanAlpha", "Mixability", "Nuts", "RobustAlpha", "Scales", "alpha_for_clean", "alpha_for_robust",
    "alpha_range", "mixability", "nuts", "scales",
]  # fmt: skip

SCALES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0)


@dataclass(frozen=True)
class CleanAlpha:
    """A weight chosen for clean accuracy.

    Args:
        alpha: weight of the robust model.
        clean_accuracy: of the mix with that weight, on the images it was chosen on.
        n: images.
    """

    alpha: float
    clean_accuracy: Interval
    n: int


def alpha_for_clean(accurate: ArrayLike, robust: ArrayLike, labels: ArrayLike, wanted: float) -> CleanAlpha:
    """The largest alpha whose mix has at least the wanted clean accuracy, exactly.

    Accuracy is a step function of alpha with at most 2N breakpoints, and need not be monotone.  The images are right on
    open intervals, so a largest weight below 1 is not attained: the one returned is 1e-6 below (less between close
    breakpoints).

    Args:
        accurate: probabilities of the accurate model at clean validation images, with the mix's scale, (N, K).
        robust: those of the robust model, (N, K).
        labels: (N,).
        wanted: share of the N images in (0, 1].

    Raises:
        HauberkError: if no weight reaches it; the message says what is reachable.
    """
    low, high = right_intervals(accurate, robust, labels)
    alpha, count = largest(low, high, enough_of(wanted, len(low)), 1.0)
    return CleanAlpha(alpha, wilson(count, len(low)), len(low))


# --- what the robust model keeps --------------------------------------------------------------------------------


@dataclass(frozen=True)
class RobustAlpha:
    """A weight chosen for robustness.

    Args:
        alpha: weight of the robust model.
        estimated_robust_accuracy: share of images whose margin suffices, on the images it was chosen on.
        n: images.
    """

    alpha: float
    estimated_robust_accuracy: Interval
    n: int


def alpha_for_robust(margins: ArrayLike, wanted: float) -> RobustAlpha:
    r"""The smallest alpha at which the wanted share of attacked margins exceeds :math:`(1-\alpha)/\alpha`.

    By Lemma 3.2 of Bai et al. 2024 the mix keeps the label wherever the robust model keeps that margin, whatever the
    accurate model does.  An attack gives an upper bound of the least margin, so this is an estimate of robust accuracy
    and not a certificate: a stronger attack may lower it. It does not count images that are right only because of the
    accurate model.

    Args:
        margins: :math:`p_y - \max_{j \ne y} p_j` of the robust model, with the mix's scale, at the points of smallest
            probability margin that an attack found (``AttackResult.probability_margin``); (N,), negative where broken.
        wanted: share of the N images in (0, 1].

    Raises:
        HauberkError: if fewer images have a positive margin; the message says how many do.
    """
    m = margins_of(margins)
    kept = np.sort(m)[::-1][enough_of(wanted, len(m)) - 1]  # the least margin among those that have to be kept
    if kept <= 0.0:
        raise HauberkError(
            f"expected an estimated robust accuracy of {wanted:.4g}, but the robust model itself has "
            f"{(m > 0.0).mean():.4g} of {len(m)} images under attack",
            "choose a lower target or a more robust model: no weight exceeds the robust model itself",
        )
    alpha = needed_alpha(float(kept))
    return RobustAlpha(alpha, wilson(kept_by(m, alpha), len(m)), len(m))


@dataclass(frozen=True)
class Scales:
    """Scales of the logits, and the weight that goes with them.

    Args:
        accurate_scale: factor on the accurate model's logits.
        robust_scale: factor on the robust model's logits.
        alpha: weight of the robust model.
        clean_accuracy: of that mix.
        estimated_robust_accuracy: of that mix, see ``alpha_for_robust``.
        n: images.
    """

    accurate_scale: float
    robust_scale: float
    alpha: float
    clean_accuracy: Interval
    estimated_robust_accuracy: Interval
    n: int


def scales(
    accurate: ArrayLike,
    robust: ArrayLike,
    attacked: ArrayLike,
    labels: ArrayLike,
    wanted: float,
    *,
    accurate_scales: Sequence[float] = SCALES,
    robust_scales: Sequence[float] = SCALES,
) -> Scales:
    """The scales and the weight of highest clean accuracy at a wanted estimated robust accuracy.

    For each pair of scales, of all weights from that of ``alpha_for_robust`` up to 1, the one with the highest clean
    accuracy is taken, and the largest of several.  Of several pairs, the one of higher estimated robust accuracy wins,
    then the first.  The points of smallest margin were found at one scale and are used at all: one more reason why the
    robust accuracy is an estimate.

    Args:
        accurate: logits of the accurate model at clean validation images, unscaled, (N, K).
        robust: logits of the robust model there, (N, K).
        attacked: logits of the robust model at its worst points found, (N, K), rows in the same order.
        labels: (N,).
        wanted: estimated robust accuracy, in (0, 1].
        accurate_scales: positive factors to try.
        robust_scales: likewise.

    Raises:
        HauberkError: if the robust model keeps fewer images than wanted, whatever its scale.
    """
    y, g, h, worst = tables("logits", labels, accurate, robust, attacked)
    best: tuple[int, int, float, float, float] | None = None
    for hot in robust_scales:
        margins = margin(softmax(hot * worst), y)
        least = alpha_for_robust(margins, wanted).alpha
        soft = softmax(hot * h)
        for sharp in accurate_scales:
            low, high = right_intervals(softmax(sharp * g), soft, y)
            alpha, right = most(low, high, least)
            found = (right, kept_by(margins, alpha), sharp, hot, alpha)
            if best is None or found[:2] > best[:2]:
                best = found
    if best is None:
        raise HauberkError("there are no scales to try", "give at least one for each model")
    right, kept, sharp, hot, alpha = best
    return Scales(sharp, hot, alpha, wilson(right, len(y)), wilson(kept, len(y)), len(y))


# --- does mixing help? ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixability:
    """Whether a pair of models has confidence gaps that a mix can use.

    Args:
        robust: the robust model's gaps; ``attacked_right`` against ``clean_wrong`` is what matters.
        accurate: the accurate model's; ``attacked_wrong`` and ``clean_right`` matter.
        correctable: share of clean images at which only the accurate model is right: the most that mixing can correct.
        low: weight above which an attack on the typical image does not get through.
        high: weight below which the typical error of the robust model is corrected.
        helps: whether there are weights between, and errors to correct.
        sentence: the verdict and its reason.
        n: images.
    """

    robust: ConfidenceGaps
    accurate: ConfidenceGaps
    correctable: Interval
    low: float
    high: float
    helps: bool
    sentence: str
    n: int


def mixability(
    accurate_clean: ArrayLike,
    accurate_attacked: ArrayLike,
    robust_clean: ArrayLike,
    robust_attacked: ArrayLike,
    labels: ArrayLike,
    seed: int = 0,
) -> Mixability:
    r"""Predict whether mixing will help, from the confidence gaps of both models.

    With the medians of the gaps, h's when right under attack (a) and when wrong on clean images (w), and g's when wrong
    under attack (b) and when right on clean images (c): an attack fails where :math:`\alpha a > (1-\alpha) b`, an error
    is corrected where :math:`\alpha w < (1-\alpha) c`, and both are possible when :math:`b/(a+b) < c/(c+w)`.

    Args:
        accurate_clean: probabilities of the accurate model g at clean validation images, (N, K).
        accurate_attacked: those at attacked images, (N, K).
        robust_clean: probabilities of the robust model h at clean images, (N, K).
        robust_attacked: those at attacked images, (N, K); in Table 1 each model is attacked by itself.
        labels: (N,).
        seed: of the bootstrap intervals.

    Reference: Bai et al. 2024 (adaptive smoothing), Table 1; the weights between are our reading of it.
    """
    y, g, h = tables("probabilities", labels, accurate_clean, robust_clean)
    accurate = confidence_gaps(g, accurate_attacked, y, seed)
    robust = confidence_gaps(h, robust_attacked, y, seed)
    alone = (g.argmax(1) == y) & (h.argmax(1) != y)
    a, w = robust.attacked_right.median.value, robust.clean_wrong.median.value
    b, c = accurate.attacked_wrong.median.value, accurate.clean_right.median.value
    b = 0.0 if np.isnan(b) else b  # no attack on g succeeds, so nothing stands against h
    low, high = b / (a + b) if a + b > 0 else np.nan, c / (c + w) if c + w > 0 else np.nan
    helps = bool(alone.any() and low < high)
    return Mixability(
        robust, accurate, wilson(int(alone.sum()), len(y)), low, high, helps,
        _verdict(helps, bool(alone.any()), a, w, low, high), len(y),
    )  # fmt: skip


def _verdict(helps: bool, errors: bool, a: float, w: float, low: float, high: float) -> str:
    if not errors:
        return "Mixing will not help: on no clean image is the accurate model right where the robust one is wrong."
    if np.isnan(a):
        return "Mixing will not help: the robust model is right on no image under attack, so there is nothing to keep."
    gaps = (
        f"the robust model leads by {a:.2f} (median) where it is right under attack and by {w:.2f} where it is wrong "
        f"on clean images"
    )
    if helps:
        return f"Mixing will help: {gaps}, so weights between {low:.3f} and {high:.3f} correct errors and stop attacks."
    return f"Mixing will hardly help: {gaps}, so a weight that corrects its errors lets attacks through."


# --- a mixing network ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AlphaRange:
    """The range of a mixing network's weights.

    Args:
        alpha_min: weight where the network's sigmoid is 0.
        alpha_max: weight where it is 1.
        clean_accuracy: of the mix with each clean image's own weight.
        estimated_robust_accuracy: of the mix with each attacked image's own weight, see ``alpha_for_robust``.
        estimated_least_accuracy: the same with ``alpha_min`` for every image, so for any output of the network.
        n: images.
    """

    alpha_min: float
    alpha_max: float
    clean_accuracy: Interval
    estimated_robust_accuracy: Interval
    estimated_least_accuracy: Interval
    n: int


def alpha_range(
    accurate: ArrayLike,
    robust: ArrayLike,
    labels: ArrayLike,
    clean_alphas: ArrayLike,
    attacked_alphas: ArrayLike,
    margins: ArrayLike,
    width: float,
    wanted: float,
) -> AlphaRange:
    r"""The highest range of a given width at which a mixing network has the wanted clean accuracy.

    The network's sigmoid u becomes :math:`\alpha = \alpha_{\min} + \mathrm{width} \cdot u`, so each image is right on
    one open interval of :math:`\alpha_{\min}`, and the choice is exact as in ``alpha_for_clean``.

    Args:
        accurate: probabilities of the accurate model at clean validation images, with the mix's scale, (N, K).
        robust: those of the robust model, (N, K).
        labels: (N,).
        clean_alphas: sigmoid outputs at the clean images, in [0, 1], (N,).
        attacked_alphas: those at the attacked images, (N,).
        margins: of the robust model there, see ``alpha_for_robust``, (N,).
        width: alpha_max - alpha_min, in [0, 1).
        wanted: clean accuracy in (0, 1].

    Raises:
        HauberkError: if no range reaches it; the message says what is reachable.
    """
    if not 0.0 <= width < 1.0:
        raise HauberkError(
            f"expected a width in [0, 1), got {width}", "published mixing networks use widths of 0.04 to 0.15"
        )
    low, high = right_intervals(accurate, robust, labels)
    u, v = (sigmoids_of(values, len(low)) for values in (clean_alphas, attacked_alphas))
    m = margins_of(margins, len(low))
    least, right = largest(low - width * u, high - width * u, enough_of(wanted, len(low)), 1.0 - width)
    kept, least_kept = kept_by(m, least + width * v), kept_by(m, least)
    n = len(low)
    return AlphaRange(least, least + width, wilson(right, n), wilson(kept, n), wilson(least_kept, n), n)
