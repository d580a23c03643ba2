"""The contract of layers that know their Lipschitz constant."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.conformance.rules import require
from hauberk.layers.bound import Bound, BoundedLayer
from hauberk.threats import norms


def check_lipschitz_layer(layer: nn.Module, input_shape: Sequence[int]) -> None:
    """Its bound holds for pairs of points and for Jacobians, as it is and with weights three times as large.

    Args:
        layer: with a method ``lipschitz_bound(input_shape) -> Bound``; its parameters are copied, not changed.
        input_shape: shape of one input, without the batch axis.

    Raises:
        HauberkError: naming the broken rule.
    """
    require(isinstance(layer, BoundedLayer), layer, "it has a method lipschitz_bound(input_shape)")
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 3.0):
        exact = copy.deepcopy(layer).double().eval()
        with torch.no_grad():
            for p in exact.parameters():
                p.mul_(scale)
        bound = exact.lipschitz_bound(tuple(input_shape)) if isinstance(exact, BoundedLayer) else None
        require(isinstance(bound, Bound), layer, "lipschitz_bound returns a Bound")
        assert bound is not None  # noqa: S101 - checked in the line before
        inputs = torch.randn(12, *input_shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            rows = torch.cat([exact(inputs[i : i + 1]) for i in range(12)])
            require(torch.allclose(exact(inputs), rows, atol=1e-10), layer, "rows of a batch do not meet")
            steps = 10.0 ** torch.randint(-4, 2, (12,), generator=generator).double()
            moves = torch.randn(12, *input_shape, generator=generator, dtype=torch.float64)
            others = inputs + steps.reshape(-1, *[1] * len(input_shape)) * moves
            stretch = norms(exact(others) - rows, "l2") / norms(others - inputs, "l2")
        steepest = max(float(stretch.max()), *(_jacobian_norm(exact, inputs[i : i + 1]) for i in range(3)))
        require(steepest <= bound.value * (1 + 1e-7), layer, "no two points move apart faster than the bound",
                 f"{steepest:.6g} > {bound.value:.6g}, weights times {scale:g}")  # fmt: skip


def _jacobian_norm(layer: nn.Module, row: Tensor) -> float:
    leaf = row.clone().requires_grad_(True)
    outputs: Tensor = layer(leaf).flatten()
    rows = [torch.autograd.grad(value, leaf, retain_graph=True)[0].flatten() for value in outputs]
    return float(torch.linalg.matrix_norm(torch.stack(rows), 2))
