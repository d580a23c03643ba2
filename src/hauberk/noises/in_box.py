"""Uniform and splitting noise against an attacker who stays in the pixel box: larger L1 radii beyond 1."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic.dataclasses import dataclass

from hauberk.noises.splitting import Splitting
from hauberk.noises.uniform import WIDTH, Uniform
from hauberk.threats import CONFIG, Norm


def shared_part(length: float, width: float) -> float:
    r"""The smallest share that two cubes of noise have in common, if no pixel differs by more than 1.

    Cubes of that width around x and x' share :math:`\prod_i (1 - |\delta_i| / w)`.  The logarithm of a factor is
    concave in :math:`|\delta_i|`, so that of all :math:`\delta` of one L1 length with :math:`|\delta_i| \le 1` the
    share is least where the length is in as few pixels as may be: each of them moves by 1, and one by the rest.

    Args:
        length: of the change, L1.
        width: w, :math:`2\lambda`.
    """
    if width <= 1.0:  # one pixel alone leaves nothing
        return max(0.0, 1.0 - length / width)
    whole = math.floor(length)
    return float((1.0 - 1.0 / width) ** whole * (1.0 - (length - whole) / width))


class InBox(Uniform):
    r"""What two classes share: radius and margin from what two cubes have in common, with x and x' in [0, 1].

    A set of probability p under noise around x keeps at least p minus what is not shared, and a rival's probability
    gains at most as much, so that with s the shared part (``shared_part``)

    .. math:: R = \max\{r : p - q - 2(1 - s(r)) \ge m\} .

    Up to R = 1 that is the radius of ``Uniform``, and beyond it is larger.
    """

    def margin(self, probability: float, radius: float, rival: float | None = None) -> float:
        r"""Lower bound of :math:`p_y - p_j` at distance r; a rival that is not named has 1 - p."""
        other = 1.0 - probability if rival is None else rival
        return probability - other - 2.0 * (1.0 - shared_part(radius, WIDTH * self.sigma))

    def radius(self, probability: float, margin: float = 0.0, rival: float | None = None) -> float:
        """The largest R in closed form: whole pixels as long as the margin lasts, then a part of one."""
        other, width = 1.0 - probability if rival is None else rival, WIDTH * self.sigma
        needed = max(0.5, 1.0 - 0.5 * (probability - other - margin))  # what has to be shared
        whole, left = 0, 1.0
        while needed < left * (1.0 - 1.0 / width):
            whole, left = whole + 1, left * (1.0 - 1.0 / width)
        return whole + width * (1.0 - needed / left)


    def probability(self, radius: float) -> float:
        """The least p that gives a radius, where the rivals have 1 - p."""
        return 1.5 - shared_part(radius, WIDTH * self.sigma)


@dataclass(frozen=True, config=CONFIG)
class UniformInBox(InBox):
    """Uniform noise, see ``InBox``: it is valid only for images in [0, 1], attacked ones included.

    Reference: Voracek & Hein 2023 (L1), with 1 for the largest move of every pixel.
    """

    norm: ClassVar[Norm] = "l1"


@dataclass(frozen=True, config=CONFIG)
class SplittingInBox(InBox, Splitting):
    """Splitting noise, see ``Splitting`` and ``InBox``.

    Reference: Levine & Feizi 2021, Theorem 1; Voracek & Hein 2023.
    """

    norm: ClassVar[Norm] = "l1"
