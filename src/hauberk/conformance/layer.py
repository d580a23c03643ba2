"""The contract of layers that know their Lipschitz constant."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hauberk.conformance.rules import require
from hauberk.draws import drawn as drawn_by
from hauberk.draws import draws_by_key
from hauberk.layers.bound import Bound, BoundedLayer
from hauberk.layers.export import exported
from hauberk.layers.lipschitz import NORMS, walk
from hauberk.randomness import SHARED, Key, Randomness, Repeated
from hauberk.threats import norms

SIZES = (1.0, 0.01, 100.0, 1e4)  # of the inputs, in turn
# what is done to the weights: by which they are multiplied, and the deviation of noise that is added
WEIGHTS = (("as they are", 1.0, 0.0), ("times 3", 3.0, 0.0), ("times 1/3", 1 / 3, 0.0), ("plus noise", 1.0, 0.5))


def check_lipschitz_layer(layer: nn.Module, input_shape: Sequence[int]) -> None:
    """Its bounds hold in three norms for pairs of points and Jacobians, as it is and with other weights.

    The other weights are three times and a third of what they are, and what they are plus noise; buffers are scaled by
    random factors.  So a constant that the bound does not look at belongs into the code and not into a buffer.

    Args:
        layer: with a method ``lipschitz_bound(input_shape, norm) -> Bound``, or without a norm for L2 alone; it is
            copied, not changed.  Of a random one, several draws are held against its own bound.
        input_shape: shape of one input, without the batch axis.

    Raises:
        HauberkError: naming the broken rule, or what the walk refuses.
    """
    require(isinstance(layer, BoundedLayer), layer, "it has a method lipschitz_bound(input_shape)")
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    for weights, scale, noise in WEIGHTS:
        whole = copy.deepcopy(layer).double().eval().requires_grad_(False)
        for weight in whole.parameters():
            weight.mul_(scale).add_(noise * drawn(*weight.shape))
        for buffer in whole.buffers():
            if buffer.is_floating_point():
                buffer.mul_(scale * (noise * drawn(*buffer.shape)).exp())
        # of a random layer, another draw with each kind of weights; its own bound holds for every draw
        exact = one_of(whole, Key(0, int(7 * scale), (SHARED,), weights))
        each = (12, *[1] * len(input_shape))
        inputs = drawn(12, *input_shape) * torch.tensor(SIZES * 3, dtype=torch.float64).reshape(each)
        steps = 10.0 ** torch.randint(-4, 2, each, generator=generator).double()
        others = inputs + steps * drawn(12, *input_shape)
        with torch.no_grad():
            rows = exact(inputs.clone())
            # of equal shape, because a kernel may round batches of another shape otherwise
            first, last = torch.cat([inputs[:6], others[6:]]), torch.cat([others[:6], inputs[6:]])
            together = torch.cat([exact(first)[:6], exact(last)[6:]])
            require(torch.allclose(together, rows, atol=1e-10), layer, "rows of a batch do not meet")
            apart = exact(others.clone()) - rows
            single = copy.deepcopy(exact).float()(inputs.float()).double()
            near = torch.allclose(single, rows, rtol=1e-2, atol=1e-3 * float(rows.abs().max()))
            require(near, layer, "it computes in single precision what it computes in double")
            plain = exported(copy.deepcopy(exact))(inputs.clone())
            require(torch.allclose(plain, rows, rtol=1e-6, atol=1e-8), layer, "what it exports is the same function")
        bound = whole.lipschitz_bound(tuple(input_shape)) if isinstance(whole, BoundedLayer) else None
        require(isinstance(bound, Bound), layer, "lipschitz_bound returns a Bound")
        bounds = walk(whole, tuple(input_shape))
        jacobians = [_jacobian(exact, inputs[i : i + 1]) for i in range(len(SIZES))]
        for norm in NORMS:
            steepest = max(
                float((norms(apart, norm) / norms(others - inputs, norm)).max()),
                *(float(torch.linalg.matrix_norm(j, {"l1": 1, "l2": 2, "linf": math.inf}[norm])) for j in jacobians),
            )
            value = bounds.total(norm).value
            require(steepest <= value * (1 + 1e-7), layer, "no two points move apart faster than the bound",
                    f"{steepest:.6g} > {value:.6g} in {norm}, weights {weights}")  # fmt: skip


def one_of(layer: nn.Module, key: Key) -> nn.Module:
    """The layer, or one draw of a random one that is the same for every batch: all rows have the noise of one."""
    return drawn_by(layer, _Alike(key)).eval() if draws_by_key(layer) else layer


@dataclass(frozen=True)
class _Alike:
    """A draw whose rows are alike, so that they can be compared in any batch."""

    key: Key

    def child(self, name: str) -> _Alike:
        return _Alike(self.key.child(name))

    def shared(self, like: Tensor) -> Randomness:
        return self.key.shared(like)

    def rows(self, like: Tensor) -> Randomness:
        return Repeated(self.key.shared(like), len(like), like.device)


def _jacobian(layer: nn.Module, row: Tensor) -> Tensor:
    leaf = row.clone().requires_grad_(True)
    outputs: Tensor = layer(leaf.clone()).flatten()  # a copy, because some layers work in place
    return torch.stack([torch.autograd.grad(value, leaf, retain_graph=True)[0].flatten() for value in outputs])
