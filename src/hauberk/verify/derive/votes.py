"""Class and radius from votes under noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from hauberk.errors import HauberkError

Law = Callable[[Mapping[str, Any]], Any]


def _uniform(noise: Mapping[str, Any]) -> Any:
    return stats.uniform(loc=-noise["sigma"] * 3.0**0.5, scale=2.0 * noise["sigma"] * 3.0**0.5)


# for each family: the norm of its radii, and the law by which a probability falls along its worst direction
LAWS: dict[str, tuple[str, Law]] = {
    "gaussian": ("l2", lambda noise: stats.norm(scale=noise["sigma"])),
    "gaussian_linf": ("linf", lambda noise: stats.norm(scale=noise["sigma"] / noise["pixels"] ** 0.5)),
    "grid_gaussian": ("l2", lambda noise: stats.norm(scale=noise["sigma"])),
    "laplace": ("l1", lambda noise: stats.laplace(scale=noise["sigma"] * 0.5**0.5)),
    "splitting": ("l1", _uniform),
    "splitting_in_box": ("l1", _uniform),
    "uniform": ("l1", _uniform),
    "uniform_in_box": ("l1", _uniform),
}
IN_BOX = ("splitting_in_box", "uniform_in_box")


def noise_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """The noise that a method or its evidence names; older records, made without a choice, have Gaussian noise."""
    if "kept" in told:  # a method that keeps a sub-sample names its settings one by one
        return ablation_of(told)
    noise = told.get("noise", {"name": "gaussian", "sigma": told.get("sigma")})
    if not isinstance(noise, Mapping):
        name, _, sigma = str(noise).partition(":")
        noise = {"name": name, "sigma": sigma}
    if noise["name"] == "ablation":
        return ablation_of(noise)
    pixels = {"pixels": int(noise["pixels"])} if "pixels" in noise else {}
    return {"name": str(noise["name"]), "sigma": float(noise["sigma"])} | pixels


def ablation_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of sub-samples: axis of the modalities, size of the image, and parts and kept elements of each."""
    numbers = {key: [int(v) for v in told[key]] for key in ("size", "parts", "kept")}
    return {"name": "ablation", "axis": str(told["axis"]), **numbers}


def law_of(shared: Mapping[str, Any]) -> Any:
    """The distribution of one pixel's noise."""
    return _law(tuple(noise_of(shared).items()))


@cache
def _law(noise: tuple[tuple[str, Any], ...]) -> Any:
    return _known(dict(noise))[1](dict(noise))


def norm_of(shared: Mapping[str, Any]) -> str:
    """The norm in which the noise proves radii; for sub-samples, ``elements``."""
    noise = noise_of(shared)
    return "elements" if noise["name"] == "ablation" else _known(noise)[0]


def _known(noise: Mapping[str, Any]) -> tuple[str, Law]:
    if noise["name"] not in LAWS:
        raise HauberkError(
            f"no law is known of the noise {noise['name']!r}", "add it to LAWS in src/hauberk/verify/derive/votes.py"
        )
    return LAWS[noise["name"]]


def smoothing(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    """Class and radius from vote counts: the radius at which F, moved from the class to a rival, keeps just the margin.

    F is the law of one pixel's noise.
    """
    top, lower, upper = vote_bounds(row, shared)
    if top < 0 or not lower > upper:
        return -1, 0.0
    if not lower - upper > margin:
        return top, 0.0
    if noise_of(shared)["name"] in IN_BOX:
        return top, _in_box(noise_of(shared)["sigma"], lower - upper - margin)
    law = law_of(shared)
    if shared.get("rival", "rest") == "rest":
        return top, float(law.ppf(lower) - law.ppf((1.0 + margin) / 2.0))
    meet = float(law.ppf(lower) - law.ppf(upper)) / 2.0
    if margin == 0.0:
        return top, meet
    near, far = float(law.ppf(lower)), float(law.ppf(upper))
    return top, float(
        optimize.brentq(lambda r: law.cdf(near - r) - law.cdf(far + r) - margin, 0.0, meet, xtol=1e-15)
    )


def _in_box(sigma: float, lead: float) -> float:
    """The distance of two cubes of noise at which the class has lost half of its lead, pixel after pixel moving by 1.

    The volume that two cubes share is the product, over the moved pixels, of the length that two intervals share.
    """
    width = 12.0**0.5 * sigma

    def lost(length: float) -> float:
        moves = np.append(np.ones(int(length)), length - int(length))
        return 1.0 - float(np.prod(np.maximum(0.0, 1.0 - moves / width)))

    far = 1.0
    while 2.0 * lost(far) < lead:
        far += 1.0
    return float(optimize.brentq(lambda length: 2.0 * lost(length) - lead, far - 1.0, far, xtol=1e-15))


def vote_bounds(row: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[int, float, float]:
    """The class with most of the first votes, a lower bound of its probability, and an upper bound of every rival's.

    A bound is the p at which at least, or at most, this many votes have the allowed probability of failure: a root of
    the binomial's tail, not the Beta quantile that the certificate uses.  A bound that holds at any time is the p under
    which these votes are alpha times as likely as under the beta-binomial law, where p itself is drawn.
    """
    first, second = np.asarray(row["counts0"]), np.asarray(row["counts"])
    total, below = int(row.get("drawn", shared["n"])), _rule(row, shared)
    if first.sum() > shared["n0"] or second.sum() > total:  # a copy with a tie or NaN votes for no class
        return -1, 0.0, 1.0
    if below is None:
        return -1, 0.0, 1.0
    top, alpha, slack = int(np.argmax(first)), float(shared["alpha"]), _slack(noise_of(shared))
    if shared.get("rival", "rest") == "rest":
        lower = max(0.0, below(int(second[top]), total, alpha) - slack)
        return top, lower, 1.0 - lower
    lower = max(0.0, below(int(second[top]), total, alpha / 2.0) - slack)
    most = int(np.delete(second, top).max())
    return top, lower, min(1.0 - below(total - most, total, alpha / 2.0) + slack, 1.0 - lower)


def _rule(row: Mapping[str, Any], shared: Mapping[str, Any]) -> Callable[[int, int, float], float] | None:
    """The bound of the planned rule; None if the rule has no bound for this number of votes."""
    planned, rule = int(shared["n"]), shared.get("rule", "fixed")
    drawn, looks = int(row.get("drawn", planned)), [int(n) for n in shared.get("looks", ())]
    if rule == "anytime":
        return _anytime if 0 < drawn <= planned else None
    if rule == "looks":
        return partial(_split, len(looks)) if drawn in looks and max(looks) == planned else None
    if drawn != planned or rule not in ("fixed", "randomised"):
        return None
    return _fixed if rule == "fixed" else partial(_randomised, float(row["u"]))


def _slack(noise: Mapping[str, Any]) -> float:
    """The most that grid draws, from a float64 table for 2^24 values, differ from their law; 0 for other noise."""
    return 255.0 * float(noise["sigma"]) / 2**27 if noise["name"] == "grid_gaussian" else 0.0


@cache
def _fixed(votes: int, total: int, alpha: float) -> float:
    if votes == 0:
        return 0.0
    # the binomial's tail; stats.binom.sf is the same number, and takes a hundred times as long for one at a time
    return float(optimize.brentq(lambda p: special.betainc(votes, total - votes + 1, p) - alpha, 0.0, 1.0, xtol=1e-15))


def _split(looks: int, votes: int, total: int, alpha: float) -> float:
    return _fixed(votes, total, alpha / looks)


def _randomised(u: float, votes: int, total: int, alpha: float) -> float:
    if not 0.0 < u <= 1.0:
        return 0.0

    def spent(p: float) -> float:
        return float(stats.binom.sf(votes, total, p) + u * stats.binom.pmf(votes, total, p)) - alpha

    if spent(0.0) >= 0.0:
        return 0.0
    found = float(optimize.brentq(spent, 0.0, 1.0, xtol=1e-15)) if spent(1.0) > 0.0 else 1.0
    return min(found, math.pow(max(0.5, alpha), 1.0 / total))  # no bound of 1, whose radius would be infinite


def _anytime(votes: int, total: int, alpha: float) -> float:
    if votes == 0:
        return 0.0
    level = stats.betabinom.logpmf(votes, total, 0.5, 0.5) + np.log(alpha)
    return float(
        optimize.brentq(lambda p: level - stats.binom.logpmf(votes, total, p), 1e-300, votes / total, xtol=1e-15)
    )
