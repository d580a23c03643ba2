"""Adversarial weight perturbation: each step is taken at the worst weights nearby (Wu et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hauberk.attacks.tape import Tape, taping
from hauberk.objectives.base import Context, Loss
from hauberk.randomness import bookmark


class AWP:
    r"""The gradient of the loss at weights that were moved to increase it, applied to the original weights.

    .. math:: v_l = \gamma\,\|w_l\|_2\,\frac{g_l}{\|g_l\|_2}, \quad g = \nabla_w L(w), \qquad
        w \leftarrow w - \eta\,\nabla_w L(w + v)

    for every tensor l of more than one dimension, so neither biases nor norm layers (Wu et al. 2020, Eq. 8 to 10 and
    Algorithm 1, with one step of v and one of the attack's rounds).  L is the loss of any objective on the same batch:
    both evaluations see the same attacked images, augmentations and noise, and the memory of the objective and of batch
    norm comes from the second one only, as in the authors' code.  A step costs one more forward and backward pass of
    the objective, and no further attack. The weights are restored exactly.

    Args:
        model: whose weights are moved; those without a gradient stay.
        gamma: size of v relative to the weights of its layer.
        start: epochs before the first that has v.
    """

    def __init__(self, model: nn.Module, gamma: float, start: int = 0) -> None:
        self.model, self.gamma, self.start = model, gamma, start

    def __call__(self, evaluate: Callable[[], Loss], context: Context) -> Loss:
        """Leave the gradient at the moved weights in the model.

        Args:
            evaluate: the objective on a batch, which adds the gradient of its loss to the parameters'.
            context: of the objective.

        Returns:
            the loss and terms at the weights themselves, and the term ``perturbed_loss``.
        """
        if context.epoch < self.start:
            return evaluate()
        state, back = _copied(context.state), bookmark(context.generator)
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        tape = Tape()
        with taping(tape):
            loss = evaluate()
        pairs = [(p, p.grad) for p in self.model.parameters() if p.dim() > 1 and p.grad is not None]
        self.model.zero_grad(set_to_none=True)
        kept = [(weight, weight.detach().clone()) for weight, _ in pairs]
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
            for weight, gradient in pairs:
                length = gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny)
                weight.add_(gradient * (self.gamma * weight.norm() / length))
        context.state = state
        back()
        tape.rewind()
        try:
            with taping(tape):
                worst = evaluate()
        finally:
            with torch.no_grad():
                for weight, before in kept:
                    weight.copy_(before)
        return Loss(loss.total, loss.terms | {"perturbed_loss": worst.total.detach()})


def _copied(value: Any) -> Any:
    """A copy of dictionaries and lists; what they hold in the end, tensors too, is replaced and never written into."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
