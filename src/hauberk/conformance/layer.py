"""The contract of layers that know their Lipschitz constant."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.conformance.rules import require
from hauberk.layers.bound import Bound, BoundedLayer
from hauberk.layers.lipschitz import NORMS, walk
from hauberk.threats import norms

SIZES = (1.0, 0.01, 100.0)  # of the inputs, in turn


def check_lipschitz_layer(layer: nn.Module, input_shape: Sequence[int]) -> None:
    """Its bounds hold in three norms for pairs of points and Jacobians, as it is and with weights three times as large.

    Args:
        layer: with a method ``lipschitz_bound(input_shape, norm) -> Bound``, or without a norm for L2 alone; it is
            copied, not changed.
        input_shape: shape of one input, without the batch axis.

    Raises:
        HauberkError: naming the broken rule, or what the walk refuses.
    """
    require(isinstance(layer, BoundedLayer), layer, "it has a method lipschitz_bound(input_shape)")
    generator = torch.Generator().manual_seed(0)

    def drawn() -> Tensor:
        return torch.randn(12, *input_shape, generator=generator, dtype=torch.float64)

    for scale in (1.0, 3.0):
        exact = copy.deepcopy(layer).double().eval().requires_grad_(False)
        for values in (*exact.parameters(), *exact.buffers()):
            if values.is_floating_point():
                values.mul_(scale)
        each = (12, *[1] * len(input_shape))
        inputs = drawn() * torch.tensor(SIZES * 4, dtype=torch.float64).reshape(each)
        steps = 10.0 ** torch.randint(-4, 2, each, generator=generator).double()
        others = inputs + steps * drawn()
        with torch.no_grad():
            rows = torch.cat([exact(inputs[i : i + 1]) for i in range(12)])
            require(torch.allclose(exact(inputs), rows, atol=1e-10), layer, "rows of a batch do not meet")
            apart = exact(others) - rows
        bound = exact.lipschitz_bound(tuple(input_shape)) if isinstance(exact, BoundedLayer) else None
        require(isinstance(bound, Bound), layer, "lipschitz_bound returns a Bound")
        bounds = walk(exact, tuple(input_shape))
        jacobians = [_jacobian(exact, inputs[i : i + 1]) for i in range(3)]
        for norm in NORMS:
            steepest = max(
                float((norms(apart, norm) / norms(others - inputs, norm)).max()),
                *(float(torch.linalg.matrix_norm(j, {"l1": 1, "l2": 2, "linf": math.inf}[norm])) for j in jacobians),
            )
            value = bounds.total(norm).value
            require(steepest <= value * (1 + 1e-7), layer, "no two points move apart faster than the bound",
                    f"{steepest:.6g} > {value:.6g} in {norm}, weights times {scale:g}")  # fmt: skip


def _jacobian(layer: nn.Module, row: Tensor) -> Tensor:
    leaf = row.clone().requires_grad_(True)
    outputs: Tensor = layer(leaf).flatten()
    return torch.stack([torch.autograd.grad(value, leaf, retain_graph=True)[0].flatten() for value in outputs])
