"""The noise contract."""

from __future__ import annotations

import math

import numpy as np

from hauberk.conformance.rules import require
from hauberk.noises import Noise
from hauberk.randomness import Consecutive, PerSample, stream

DRAWS = 200_000
DEVIATIONS = 6.0  # standard errors that a right family may be away


def check_noise(noise: Noise) -> None:
    r"""Draws have mean 0 and deviation sigma, and no half-line of one pixel falls faster than F says.

    For a threshold t let p = P[z <= t].  A shift by r along one pixel has the length r in every norm, so that
    :math:`P[z + r \le t] \ge F(F^{-1}(p) - r/\sigma)` must hold; that no other set falls faster is the family's proof,
    which no test replaces.

    Args:
        noise: of a registered family.

    Raises:
        HauberkError: naming the broken rule.
    """
    values = noise.sample(Consecutive(stream(0, 0, "contract"), DRAWS), 1)
    require(tuple(values.shape) == (DRAWS, 1) and str(values.dtype) == "torch.float32", noise, "draws are (B, *shape)")
    pixel = values.double().numpy().ravel()
    error = noise.sigma / math.sqrt(DRAWS)
    require(abs(pixel.mean()) < DEVIATIONS * error, noise, "draws have mean 0", f"{pixel.mean():.3g}")
    spread = math.sqrt(max(float(((pixel**2 - noise.sigma**2) ** 2).mean()), 1e-300) / DRAWS)
    wide = abs(float((pixel**2).mean()) - noise.sigma**2)
    require(wide < DEVIATIONS * spread, noise, "draws have the standard deviation sigma", f"{pixel.std():.4g}")
    several = noise.sample(PerSample(0, [3, 5], "contract"), 2, 3)
    alone = noise.sample(PerSample(0, [5], "contract"), 2, 3)
    require(bool((several[1] == alone[0]).all()), noise, "a row's draw does not depend on the other rows")
    for p in (0.05, 0.5, 0.7, 0.999):
        require(math.isclose(noise.cdf(noise.quantile(p)), p, abs_tol=1e-9), noise, "quantile is the inverse of cdf")
        level = abs(noise.cdf(-noise.quantile(p)) - (1.0 - p)) < 1e-9
        require(level, noise, "F(-t) = 1 - F(t)")
    _check_half_lines(noise, pixel)


def _check_two_pixels(noise: Noise) -> None:
    """Sum, larger and smaller one of two pixels, both shifted alike: a norm in which that is shorter must be proved."""
    pair = noise.sample(Consecutive(stream(0, 1, "contract"), DRAWS), 2).double().numpy()
    lengths = {"l1": 2.0, "l2": math.sqrt(2.0), "linf": 1.0}
    for r in (0.3 * noise.sigma, noise.sigma):
        step = r / lengths[noise.norm]
        for values, moved in ((pair.sum(1), 2.0 * step), (pair.max(1), step), (pair.min(1), step)):
            for p in (0.6, 0.9, 0.99):
                left = float((values + moved <= np.quantile(values, p)).mean())
                bound = noise.cdf(noise.quantile(p) - r / noise.sigma)
                fair = left >= bound - DEVIATIONS / math.sqrt(DRAWS)
                require(fair, noise, f"no set of two pixels falls faster in {noise.norm}", f"{left:.4f} < {bound:.4f}")


def _check_half_lines(noise: Noise, pixel: np.ndarray) -> None:
    for p in (0.6, 0.9):
        threshold = float(np.quantile(pixel, p))
        for share in (0.3, 1.0):
            r = share * noise.sigma
            left = float((pixel + r <= threshold).mean())
            bound = noise.cdf(noise.quantile(p) - r / noise.sigma)
            slack = DEVIATIONS / math.sqrt(DRAWS)
            require(left >= bound - slack, noise, "no half-line falls faster than F", f"{left:.4f} < {bound:.4f}")
    _check_two_pixels(noise)
    steep = (noise.cdf(1e-6) - noise.cdf(-1e-6)) / (2e-6 * noise.sigma)
    require(noise.steepest >= steep * (1.0 - 1e-4), noise, "steepest is the largest slope of F over sigma")
