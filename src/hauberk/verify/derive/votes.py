"""Class and radius from votes under noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import optimize, stats

from hauberk.errors import HauberkError

# of each family: the norm of its radii, and the distribution of one pixel's noise of standard deviation sigma
LAWS: dict[str, tuple[str, Callable[[float], Any]]] = {
    "gaussian": ("l2", lambda sigma: stats.norm(scale=sigma)),
    "laplace": ("l1", lambda sigma: stats.laplace(scale=sigma * 0.5**0.5)),
}


def noise_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """The noise that a method or its evidence names; records from before there was a choice have Gaussian noise."""
    noise = told.get("noise", {"name": "gaussian", "sigma": told.get("sigma")})
    if not isinstance(noise, Mapping):
        name, _, sigma = str(noise).partition(":")
        noise = {"name": name, "sigma": sigma}
    return {"name": str(noise["name"]), "sigma": float(noise["sigma"])}


def law_of(shared: Mapping[str, Any]) -> Any:
    """The distribution of one pixel's noise."""
    noise = noise_of(shared)
    return _known(noise)[1](noise["sigma"])


def norm_of(shared: Mapping[str, Any]) -> str:
    """The norm in which the noise proves radii."""
    return _known(noise_of(shared))[0]


def _known(noise: Mapping[str, Any]) -> tuple[str, Callable[[float], Any]]:
    if noise["name"] not in LAWS:
        raise HauberkError(
            f"no law is known of the noise {noise['name']!r}", "add it to LAWS in src/hauberk/verify/derive/votes.py"
        )
    return LAWS[noise["name"]]


def smoothing(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    r"""Class and radius from vote counts: :math:`F^{-1}(\underline p) - F^{-1}((1+m)/2)`, F of one pixel's noise.

    The bound is the p at which seeing at least this many votes has probability alpha: the root of the binomial's
    upper tail, not the Beta quantile that the certificate uses.  The one that holds at any time is where the
    beta-binomial law, of a p that is itself drawn, makes these votes 1/alpha times as likely as p does.
    """
    first, second = np.asarray(row["counts0"]), np.asarray(row["counts"])
    if first.sum() > shared["n0"] or second.sum() > shared["n"]:  # a copy with a tie or NaN votes for no class
        return -1, 0.0
    top = int(np.argmax(first))
    votes, total, alpha = int(second[top]), int(shared["n"]), float(shared["alpha"])
    if votes == 0:
        return -1, 0.0
    bound = (_anytime if shared.get("rule", "fixed") == "anytime" else _fixed)(votes, total, alpha)
    least = (1.0 + margin) / 2.0
    if bound <= least:
        return (top if bound > 0.5 else -1), 0.0
    law = law_of(shared)
    return top, float(law.ppf(bound) - law.ppf(least))


def _fixed(votes: int, total: int, alpha: float) -> float:
    return float(optimize.brentq(lambda p: stats.binom.sf(votes - 1, total, p) - alpha, 0.0, 1.0, xtol=1e-15))


def _anytime(votes: int, total: int, alpha: float) -> float:
    level = stats.betabinom.logpmf(votes, total, 0.5, 0.5) + np.log(alpha)
    return float(
        optimize.brentq(lambda p: level - stats.binom.logpmf(votes, total, p), 1e-300, votes / total, xtol=1e-15)
    )
