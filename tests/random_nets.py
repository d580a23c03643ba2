"""Random networks of which something is known in closed form; used by the tests of what is proved of such networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.capabilities import Random
from hauberk.classifier import Normalize
from hauberk.layers import AOLLinear, MaxMin, NoiseInjection
from hauberk.layers.bound import Bound, unit_bound
from hauberk.noises import Gaussian
from hauberk.randomness import Draw
from hauberk.threats import Norm


class RandomMask(Random):
    """Multiply each value by a number in [0, 1] that is drawn, and does not depend on the values.

    Args:
        shared: one mask for all images of a draw.
    """

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.shared = shared

    def draw(self, key: Draw) -> nn.Module:
        return Masked(key, self.shared)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        return unit_bound(norm, "a mask in [0, 1]")


class Masked(nn.Module):
    """The mask of one draw."""

    def __init__(self, key: Draw, shared: bool) -> None:
        super().__init__()
        self.key, self.shared = key, shared

    def forward(self, values: Tensor) -> Tensor:
        randomness = self.key.shared(values) if self.shared else self.key.rows(values)
        return values * randomness.uniform(*values.shape[1:]).to(values)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        return unit_bound(norm, "a mask in [0, 1]")


class HalfOff(Random):
    """Switch a value off with probability one half; each draw is the identity or zero on each value."""

    def draw(self, key: Draw) -> nn.Module:
        return Switched(key)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        return unit_bound(norm, "a mask of zeros and ones")


class Switched(Masked):
    """The switches of one draw."""

    def __init__(self, key: Draw) -> None:
        super().__init__(key, False)

    def forward(self, values: Tensor) -> Tensor:
        return values * (self.key.rows(values).uniform(*values.shape[1:]) < 0.5).to(values)


def net(classes: int = 3, noise: float = 0.1, seed: int = 0) -> nn.Sequential:
    """A 1-Lipschitz body of random parts with a linear head, on images (1, 2, 4), of no bias to any class."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        body = [nn.Flatten(), AOLLinear(8, 12), RandomMask(), MaxMin(), NoiseInjection(Gaussian(noise))]
        made = nn.Sequential(Normalize((0.5,), (1.0,)), *body, AOLLinear(12, 8), nn.Linear(8, classes))
    for layer in made:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    nn.init.orthogonal_(made[-1].weight, generator=torch.Generator().manual_seed(seed))
    return made.eval()


def half_space(noise: float, border: float = 0.5) -> nn.Sequential:
    r"""Logits 0 and :math:`x_1 - t + \tau\omega` of images (1, 1, 2), of constants 0, 1 and 1."""
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        linear.bias.copy_(torch.tensor([0.0, -border]))
    return nn.Sequential(nn.Flatten(), NoiseInjection(Gaussian(noise)), linear).eval()
