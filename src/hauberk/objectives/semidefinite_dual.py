"""Cross-entropy plus the semidefinite dual bounds of a net of one hidden layer (Raghunathan et al. 2018)."""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.errors import HauberkError
from hauberk.layers.one_hidden_layer import OneHiddenLayer
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.logit_speeds import COLD_STEPS, WARM_STEPS
from hauberk.objectives.noisy_copies import Weight
from hauberk.threats import CONFIG

MEMORY = "semidefinite_dual"  # the place of the right singular vectors in a context's state


@dataclass(frozen=True, config=CONFIG)
class SemidefiniteDual(Objective):
    r"""Cross-entropy plus a weight times the mean bound of a pair of classes, :math:`\mathrm{CE} + w\,\overline{K}`.

    :math:`K_{ij}` is the bound in Linf of ``layers.one_hidden_layer``, with its dual variables trained together with
    the weights.  Its spectral norm comes from power iteration, which approaches it from below and is therefore used
    only in training. The source adds :math:`\lambda \cdot 4 K_{ij}` over all ordered pairs, so that :math:`w = 4
    K(K-1)\,\lambda` with K classes.

    Args:
        weight: w; 0 is plain cross-entropy.

    Source: Raghunathan et al. 2018, Section 4.
    """

    weight: Weight = 0.03

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce``, ``bound`` (the mean of K) and ``accuracy``.

        Raises:
            HauberkError: unless the model ends in a ``OneHiddenLayer``.
        """
        logits: Tensor = model(batch.images)
        natural = functional.cross_entropy(logits, batch.labels)
        bound = dual_bounds(last_layer(model), context).mean()
        terms = {"ce": natural.detach(), "bound": bound.detach(), "accuracy": accuracy(logits, batch.labels)}
        return Loss(natural + self.weight * bound, terms)


def last_layer(model: nn.Module) -> OneHiddenLayer:
    """The layer that has the dual variables.

    Raises:
        HauberkError: if the model does not end in one.
    """
    last = model[-1] if type(model) is nn.Sequential and len(model) else model
    if not isinstance(last, OneHiddenLayer):
        raise HauberkError(
            f"expected a model that ends in a OneHiddenLayer, got {type(last).__name__}", "use model: one_hidden_layer"
        )
    return last


def dual_bounds(layer: OneHiddenLayer, context: Context) -> Tensor:
    r"""The bounds :math:`K_{ij}` of the pairs i < j, (P,), by power iteration, with gradients.

    Args:
        layer: with weights and dual variables.
        context: keeps the singular vectors from step to step.
    """
    matrix, size, _ = layer.duals(layer.log_p.dtype)
    fixed, vector, steps = matrix.detach(), context.state.get(MEMORY), WARM_STEPS
    if vector is None:
        generator, steps = context.generator, COLD_STEPS
        vector = torch.randn(fixed.shape[0], fixed.shape[2], generator=generator, device=generator.device)
    vector = vector.to(fixed)[:, :, None]
    for _ in range(steps):
        vector = functional.normalize(fixed.mT @ (fixed @ vector), dim=1)
    context.state[MEMORY] = vector[:, :, 0]
    norm: Tensor = torch.linalg.vector_norm(matrix @ vector, dim=(1, 2))
    return 0.5 * norm * size
