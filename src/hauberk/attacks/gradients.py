r"""Gradients of models that have none, or a random one: BPDA and EOT, chosen from the classifier's traits.

BPDA (Athalye, Carlini & Wagner 2018, Section 4.1.2): the forward pass is exact, the backward pass is a surrogate's.
EOT (Section 4.2 there): the gradient of the mean over draws, :math:`\nabla E_t[\ell(f_t(x))]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from hauberk.capabilities import Polled
from hauberk.classifier import Traits, traits
from hauberk.draws import PROBES, cuda_devices, is_random
from hauberk.errors import HauberkError
from hauberk.randomness import fenced

EOT_DRAWS = 20  # AutoAttack's number for random defences

Function = Callable[[Tensor], Tensor]


def bpda(forward: Function, surrogate: Function | None, values: Tensor) -> Tensor:
    """The exact ``forward(values)`` with the gradient of ``surrogate(values)``; None stands for the identity.

    The surrogate is called only where a gradient is needed, so that a step without one can still be evaluated.

    Raises:
        HauberkError: if the output of the surrogate has another shape.
    """
    if not torch.is_grad_enabled():
        return forward(values)
    with torch.no_grad():
        exact = forward(values.detach().clone())  # a copy, because the step may work in place
    smooth = values if surrogate is None else surrogate(values)
    if smooth.shape != exact.shape:
        raise HauberkError(
            f"the surrogate gives shape {tuple(smooth.shape)}, the exact pass {tuple(exact.shape)}",
            "a step that changes the shape needs a surrogate of its own: BPDA(step, surrogate)",
        )
    # exact + (smooth - smooth) would round; the value is the exact one bit for bit
    result: Tensor = _Straight.apply(exact, smooth)  # type: ignore[no-untyped-call]
    return result


class _Straight(torch.autograd.Function):
    """Value of the first argument, gradient to the second."""

    @staticmethod
    def forward(_ctx: object, exact: Tensor, smooth: Tensor) -> Tensor:  # noqa: ARG004
        return exact.clone()

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient


class BPDA(nn.Module):
    """A step without a useful gradient, with a surrogate for the backward pass.

    Args:
        step: the exact step, for example JPEG or rounding.
        surrogate: a differentiable stand-in of the same output shape; None is the identity.
    """

    traits = Traits(gradient="bpda")

    def __init__(self, step: nn.Module, surrogate: nn.Module | None = None) -> None:
        super().__init__()
        self.step, self.surrogate = step, surrogate

    def forward(self, values: Tensor) -> Tensor:
        """The step's exact output."""
        return bpda(self.step, self.surrogate, values)


@contextmanager
def attackable(model: nn.Module) -> Iterator[None]:
    """Inside, every module that declares ``gradient="none"`` passes a surrogate's gradient; values do not change.

    The surrogate is the module's own method or submodule ``surrogate`` if it has one, else the identity.
    """
    swapped: list[tuple[nn.Module, Function | None]] = []
    for module in model.modules():
        own, forward = getattr(module, "traits", None), vars(module).get("forward")
        done = isinstance(forward, partial) and forward.func is bpda  # an attack inside an attack
        if isinstance(own, Traits) and own.gradient == "none" and not done:
            vars(module)["forward"] = partial(bpda, module.forward, getattr(module, "surrogate", None))
            swapped.append((module, forward))
    try:
        yield
    finally:
        for module, forward in swapped:
            if forward is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = forward


def draws(model: nn.Module, images: Tensor) -> int:
    """How many model calls one gradient should average: 1 for a deterministic model, else ``EOT_DRAWS``.

    A model that decides by mean logits is attacked by as many draws as it decides with, where these are several.
    A model that declares itself deterministic is not tested; any other model is called on the images to find out.
    """
    known = traits(model)
    doubtful = known.stochastic or not known.declared
    if not (doubtful and is_random(model, images, PROBES)):
        return 1
    poll = model.poll if isinstance(model, Polled) else None
    return poll.draws if poll is not None and poll.rule == "mean" and poll.draws > 1 else EOT_DRAWS


@contextmanager
def behind_a_fence(model: nn.Module, seed: int) -> Iterator[None]:
    """Inside, a model may draw random numbers by itself; the global generators are restored afterwards."""
    known = traits(model)
    if known.declared and not known.stochastic:
        yield
        return
    with fenced(seed, cuda_devices(model)):
        yield
