"""Class and radius of a mix from evidence on its robust model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from hauberk.verify.derive.logits import lipschitz
from hauberk.verify.derive.points import local_lipschitz
from hauberk.verify.derive.votes import law_of, smoothing, vote_bounds


def mixed_margin(row: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[int, float]:
    r"""Class and radius of the mix: the base's radius at margin :math:`(1-\alpha)/\alpha`, for alpha >= 1/2.

    ``shared["bound"]`` may name a theorem instead: A.1 as it is printed, with p and 1 - p for the two classes, or 3.5,
    whose radius is the r at which the straight lines :math:`\alpha(p_y - p_i - (L_y + L_i) r)` fall to
    :math:`1 - \alpha`.  If the deployed mix decides otherwise at the image, nothing is certified.
    """
    top, radius = _mixed_margin(row, shared)
    return (top, radius) if row.get("mix_deployed", top) == top else (-1, 0.0)


def _mixed_margin(row: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[int, float]:
    alpha, base = float(shared["mix_alpha"]), str(shared["base"])
    if alpha < 0.5:
        return -1, 0.0
    derive = {"lipschitz": lipschitz, "smoothing": smoothing, "local_lipschitz": local_lipschitz}[base]
    bound = shared.get("bound", "exact")
    if bound == "exact":
        least = (1.0 - alpha) / alpha
        top, radius = derive(row, shared, least)
        # an estimate fails at its one budget alone: the class stands if the image itself has the margin
        stands = base == "local_lipschitz" and derive({**row, "points": [row["clean"]]}, shared, least)[1] > 0.0
        return (top, radius) if radius > 0.0 or stands else (-1, 0.0)
    top, radius = derive(row, shared, -np.inf if base == "local_lipschitz" else 0.0)
    if top < 0 or not radius > 0.0:
        return -1, 0.0
    if bound == "theorem_a1" and base == "smoothing":
        law, (_, lower, upper) = law_of(shared), vote_bounds(row, shared)
        found = 0.5 * float(law.ppf(alpha * lower) - law.ppf(alpha * upper + 1.0 - alpha))
        return (top, found) if found > 0.0 else (-1, 0.0)
    levels, slopes = _lines(row, shared, top, radius)
    left = alpha * levels - (1.0 - alpha)
    if not (left > 0.0).all():
        return -1, 0.0
    if base == "local_lipschitz":
        return top, radius if (left - alpha * slopes * radius > 0.0).all() else 0.0
    far = 2.0 * float(left.max() / (alpha * slopes.min()))
    return top, float(
        optimize.brentq(lambda r: float((left - alpha * slopes * r).min()), 0.0, far, xtol=1e-14, rtol=1e-14)
    )


def _lines(
    row: Mapping[str, Any], shared: Mapping[str, Any], top: int, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    r"""For every rival of a class, :math:`p_y - p_i` of the robust model at the image and :math:`L_y + L_i`.

    The steepest rise of a probability is the density of the logistic law at 0 times the largest :math:`K_{ij}`, or the
    density of one pixel's noise at 0.  For recorded points it is the largest change over the budget.
    """
    if shared["base"] == "smoothing":
        _, lower, upper = vote_bounds(row, shared)
        return np.array([lower - upper]), np.array([2.0 * law_of(shared).pdf(0.0)])
    if shared["base"] == "local_lipschitz":
        probabilities = np.asarray(row["clean"], dtype=np.float64)
        change = np.vstack([probabilities, np.asarray(row["points"], dtype=np.float64)]) - probabilities
        speeds = change.max(0) / radius
        speeds[top] = -change.min(0)[top] / radius
    else:
        logits = np.array(row["logits"], dtype=np.float64)
        logits[top] -= row.get("rounding", 0.0)
        probabilities = special.softmax(logits)
        speeds = stats.logistic.pdf(0.0) * np.asarray(shared["pairwise"], dtype=np.float64).max(1)
    others = np.arange(len(probabilities)) != top
    return (probabilities[top] - probabilities)[others], (speeds[top] + speeds)[others]
