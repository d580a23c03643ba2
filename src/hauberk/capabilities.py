"""What a model may offer beside logits.

Each is a class to inherit from.  An attribute that happens to have the same name says nothing, so a user's own
``parts``, ``outputs`` or ``draw`` do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from hauberk.randomness import AMBIENT, Draw, Key

Gradient = Literal["exact", "bpda", "none"]


@dataclass(frozen=True)
class Traits:
    """What an honest attacker must know about a classifier.

    Args:
        stochastic: two forwards of the same image may differ.
        gradient: ``exact`` if autograd gives the true gradient, ``bpda`` if a surrogate stands in, ``none`` if blocked.
        declared: False if some module is unknown, so that it must be probed and also attacked without gradients.
    """

    stochastic: bool = False
    gradient: Gradient = "exact"
    declared: bool = True


class Random(nn.Module):
    """A module whose noise is an argument: ``draw`` gives the deterministic module of one draw.

    A subclass writes ``draw`` alone.  Called without a draw, as in training, it takes its noise from torch's global
    generator.
    """

    traits = Traits(stochastic=True)

    def draw(self, key: Draw) -> nn.Module:
        """The module with the noise of one draw.

        It is a function of its input: called twice, it answers the same.  Noise that all rows share comes from
        ``key.shared(x)``, noise of each row from ``key.rows(x)``, with x the input that it is added to.  Asked again
        they start anew, so that several kinds of noise in one module take a ``key.child(name)`` each.
        """
        raise NotImplementedError

    def forward(self, values: Tensor) -> Tensor:
        """One fresh draw."""
        found: Tensor = self.draw(AMBIENT)(values)
        return found


class FixesDraws:
    """A module whose random parts meet draws of its own choice alone, so that it is a function of its input.

    Whoever looks for noise in a model does not look inside.
    """


@dataclass(frozen=True)
class Poll:
    """How fresh draws of a random classifier become its decision.

    Args:
        rule: ``vote`` is the class with most draws, of equals the smallest; ``mean`` the class of the mean logits.
        draws: how many; a vote of 1 is the answer of a single draw.
    """

    rule: Literal["vote", "mean"]
    draws: int


class Polled:
    """A random classifier with a stated rule by which draws become its decision."""

    poll: Poll


class Decides:
    """A classifier whose decision is not the argmax of one forward pass: a vote over noise, a detector."""

    def decide(self, images: Tensor, key: Key) -> Tensor:
        """Predicted classes, shape (B,), int64; -1 where it abstains.  Random numbers come from the key alone."""
        raise NotImplementedError


class NamesItself:
    """A classifier that records call by a name of its own, such as a mix by its parts."""

    @property
    def predictor(self) -> str:
        """The name, which tells apart what decides differently."""
        raise NotImplementedError


class Baked:
    """A model from a file in which train or eval mode is a part of the computation, so that no attribute shows it."""


class ScoresOnly:
    """A model that gives logits and no gradients, so that only attacks by scores can be run on it."""


class NamedOutputs:
    """A classifier with more to tell than logits: a mixing network's weight, a detector's score."""

    def outputs(self, images: Tensor) -> Mapping[str, Tensor]:
        """Named outputs, ``logits`` (B, K) among them; an adaptive attack's loss reads them."""
        raise NotImplementedError

    @property
    def adaptive_losses(self) -> tuple[Any, ...]:
        """The losses that an honest attacker adds to AutoAttack."""
        return ()


class HasParts:
    """A classifier made of classifiers, on which an attack may search in its place."""

    def parts(self) -> dict[str, nn.Module]:
        """The parts by name."""
        raise NotImplementedError


class Denoises:
    """A network from noisy images to images, (B, C, H, W) both, that is made for noise of one standard deviation."""

    sigma: float  # of one pixel, in pixel units


class Generates:
    """A diffusion model: no classifier, but a network that finds the noise in noisy images, and so makes images."""

    input_shape: tuple[int, int, int]
    num_classes: int
    conditional: bool  # whether it is told the class
    alpha_bars: Tensor  # how much of an image is left at each step, shape (T,)

    def sample(
        self, start: Tensor, labels: Tensor | None, steps: int, eta: float, noise: Callable[[int], Tensor] | None
    ) -> Tensor:
        """Images in [0, 1] from standard normal numbers, (B, C, H, W) both."""
        raise NotImplementedError
