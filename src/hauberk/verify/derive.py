"""Class and radius from evidence, written a second time: no code is shared with the certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize, special, stats


def lipschitz(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    r"""Class and radius from logits z, what rounding may have moved their differences by, and pairwise constants K.

    The radius is the largest r with :math:`d_j - K_{yj} r \ge 0` for all rivals, d less the rounding, and, for a
    margin m > 0,
    :math:`\frac{1 - e^{-\min_j (d_j - K_{yj} r)}}{1 + \sum_j e^{-(d_j - K_{yj} r)}} > m`.
    """
    logits = np.asarray(row["logits"], dtype=np.float64)
    constants = np.asarray(shared["pairwise"], dtype=np.float64)
    lost = float(row.get("rounding", 0.0))
    if not np.isfinite(logits).all() or not np.isfinite(constants).all() or not lost >= 0.0:
        return -1, 0.0
    top = int(np.argmax(logits))
    if row.get("deployed", top) != top:  # the model in its own precision decides otherwise
        return -1, 0.0
    if not row.get("distance", 0.0) <= row.get("explained", np.inf):  # it is farther away than rounding explains
        return -1, 0.0
    others = np.delete(np.arange(len(logits)), top)
    gaps, speeds = logits[top] - logits[others] - lost, constants[top, others]
    if not gaps.min() > 0.0 or not (speeds > 0.0).any():
        return top, 0.0
    with np.errstate(divide="ignore"):
        largest = float((gaps / speeds).min())

    def kept(radius: float) -> float:
        left = gaps - speeds * radius
        return float((1.0 - np.exp(-left.min())) / (1.0 + np.exp(-left).sum()))

    if margin <= 0.0:
        return top, largest
    if kept(0.0) <= margin:
        return top, 0.0
    if kept(largest) > margin:  # a margin so small that rounding decides
        return top, largest
    return top, float(optimize.brentq(lambda r: kept(r) - margin, 0.0, largest, xtol=1e-14, rtol=1e-14))


def kept_margins(row: Mapping[str, Any], shared: Mapping[str, Any], radii: Sequence[float]) -> tuple[int, list[float]]:
    r"""Class, and the probability margin that Lipschitz logits keep at each radius; -1 where the class may change."""
    top, largest = lipschitz(row, shared)
    if top < 0:
        return top, [-1.0] * len(radii)
    logits, constants = np.asarray(row["logits"], dtype=np.float64), np.asarray(shared["pairwise"], dtype=np.float64)
    others = np.delete(np.arange(len(logits)), top)
    gaps = logits[top] - logits[others] - row.get("rounding", 0.0)
    left = gaps - np.multiply.outer(np.asarray(radii, dtype=np.float64), constants[top, others])
    kept = (1.0 - np.exp(-left.min(1))) / (1.0 + np.exp(-left).sum(1))
    return top, np.where(np.asarray(radii) > largest, -1.0, kept).tolist()


def kept_margin(row: Mapping[str, Any], shared: Mapping[str, Any], radius: float) -> tuple[int, float]:
    """Class, and the margin kept at one radius."""
    top, (kept,) = kept_margins(row, shared, [radius])
    return top, kept


NOISE_NORMS = {"gaussian": "l2", "laplace": "l1"}


def noise_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """The noise that a method or its evidence names; records from before there was a choice have Gaussian noise."""
    noise = told.get("noise", {"name": "gaussian", "sigma": told.get("sigma")})
    if not isinstance(noise, Mapping):
        name, _, sigma = str(noise).partition(":")
        noise = {"name": name, "sigma": sigma}
    return {"name": str(noise["name"]), "sigma": float(noise["sigma"])}


def _law(shared: Mapping[str, Any]) -> Any:
    """The distribution of one pixel's noise, by its standard deviation."""
    noise = noise_of(shared)
    law, scale = {"gaussian": (stats.norm, 1.0), "laplace": (stats.laplace, 0.5**0.5)}[noise["name"]]
    return law(scale=scale * noise["sigma"])


def smoothing(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    r"""Class and radius from vote counts: :math:`F^{-1}(\underline p) - F^{-1}((1+m)/2)`, F of one pixel's noise.

    The bound is the p at which seeing at least this many votes has probability alpha: the root of the binomial's
    upper tail, not the Beta quantile that the certificate uses.
    """
    first, second = np.asarray(row["counts0"]), np.asarray(row["counts"])
    if first.sum() > shared["n0"] or second.sum() > shared["n"]:  # a copy with a tie or NaN votes for no class
        return -1, 0.0
    top = int(np.argmax(first))
    votes, total, alpha = int(second[top]), int(shared["n"]), float(shared["alpha"])
    if votes == 0:
        return -1, 0.0
    bound = float(optimize.brentq(lambda p: stats.binom.sf(votes - 1, total, p) - alpha, 0.0, 1.0, xtol=1e-15))
    least = (1.0 + margin) / 2.0
    if bound <= least:
        return (top if bound > 0.5 else -1), 0.0
    law = _law(shared)
    return top, float(law.ppf(bound) - law.ppf(least))


def local_lipschitz(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    """Class, and the whole budget if no point on record brings a rival nearer than the margin; an estimate."""
    clean = np.asarray(row["clean"], dtype=np.float64)
    table = np.vstack([clean, np.asarray(row["points"], dtype=np.float64)])
    if not np.isfinite(table).all():
        return -1, 0.0
    top = int(np.argmax(clean))
    ahead = table[:, [top]] - table
    ahead[:, top] = np.inf
    return top, float(shared["eps"]) if (ahead > margin).all() else 0.0


def mixed_margin(row: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[int, float]:
    r"""Class and radius of the mix: the base's radius at margin :math:`(1-\alpha)/\alpha`, for alpha >= 1/2.

    ``shared["bound"]`` may name a theorem instead: A.1 as it is printed, with p and 1 - p for the two classes, or 3.5,
    whose radius is where the straight lines :math:`\alpha(p_y - p_i - (L_y + L_i) r)` come down to
    :math:`1 - \alpha`.  Where the mix as it is deployed decides otherwise at the image, nothing is certified.
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
        # an estimate fails at its one budget alone: the class stands where the image itself has the margin
        stands = base == "local_lipschitz" and derive({**row, "points": [row["clean"]]}, shared, least)[1] > 0.0
        return (top, radius) if radius > 0.0 or stands else (-1, 0.0)
    top, radius = derive(row, shared, -np.inf if base == "local_lipschitz" else 0.0)
    if top < 0 or not radius > 0.0:
        return -1, 0.0
    if bound == "theorem_a1" and base == "smoothing":
        law = _law(shared)
        p = law.cdf(radius)
        found = 0.5 * float(law.ppf(alpha * p) - law.ppf(alpha * (1.0 - p) + 1.0 - alpha))
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

    The steepest rise of a probability is the density of the logistic law at 0 times the largest :math:`K_{ij}`, or that
    of one pixel's noise at 0; of recorded points, the largest change over the budget.
    """
    if shared["base"] == "smoothing":
        law = _law(shared)
        p = float(law.cdf(radius))
        return np.array([p - (1.0 - p)]), np.array([2.0 * law.pdf(0.0)])
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


DERIVE = {
    "lipschitz": lipschitz,
    "smoothing": smoothing,
    "local_lipschitz": local_lipschitz,
    "mixed_margin": mixed_margin,
}
