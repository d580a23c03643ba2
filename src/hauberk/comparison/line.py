"""The straight line between two models in the plane of clean and robust accuracy: the results of tossing a coin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hauberk.evaluation.metrics import Floats


def above(points: Sequence[tuple[Floats, Floats]], curve: Sequence[tuple[Floats, Floats]]) -> Floats:
    r"""The height of models above a curve of other models at equal clean accuracy, as one contribution for each image.

    The mean of the contributions is the mean height of the points, and their spread gives its standard error.  For a
    point with clean and robust outcomes c and r, between its neighbours a and b on the curve, the contributions are

    .. math::
        r_i - t\,r^a_i - (1 - t)\,r^b_i - (\bar r^a - \bar r^b)\,\dot t_i, \quad
        t = \frac{\bar c - \bar c^b}{\bar c^a - \bar c^b}, \quad
        \dot t_i = \frac{c_i - c^b_i - t\,(c^a_i - c^b_i)}{\bar c^a - \bar c^b},

    where the last term is the influence of the image on t.  Beyond its ends the curve is level.

    Args:
        points: clean and robust outcomes of each model, each of shape (N,) with values in [0, 1].
        curve: the same of the models on the curve, on the same images.

    Returns:
        shape (N,).
    """
    ordered = sorted(curve, key=lambda model: float(model[0].mean()))
    heights = [robust - _at(clean, ordered) for clean, robust in points]
    found: Floats = np.mean(heights, 0)
    return found


def _at(clean: Floats, curve: Sequence[tuple[Floats, Floats]]) -> Floats:
    """The contributions of the images to the curve's robust accuracy at this clean accuracy."""
    means = np.array([own.mean() for own, _ in curve])
    place = int(np.searchsorted(means, clean.mean(), side="right"))
    if place in (0, len(curve)):
        return curve[max(0, place - 1)][1]
    (low, low_robust), (high, high_robust) = curve[place - 1], curve[place]
    width = means[place] - means[place - 1]
    share = (clean.mean() - means[place - 1]) / width
    influence = (clean - low - share * (high - low)) / width
    slope = high_robust.mean() - low_robust.mean()
    found: Floats = share * high_robust + (1 - share) * low_robust + slope * influence
    return found
