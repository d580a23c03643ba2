"""The linear residual convolution: one kernel, with a norm that is known."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import conv_norm
from hauberk.layers.li_resnet import LiResConv2d


def dense(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Matrix of an affine layer, in float64."""
    size = math.prod(shape)
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    return (layer(eye) - layer(torch.zeros_like(eye))).flatten(1).T


def randomise(layer: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=st.integers(1, 2),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.sampled_from([1, 3]), st.sampled_from([1, 3, 5])),
    mode=st.sampled_from(["zeros", "circular"]),
    scale=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_is_the_sum_and_its_norm_is_bounded(
    seed: int, channels: int, groups: int, kernel: tuple[int, int], mode: str, scale: float
) -> None:
    count, padding = channels * groups, (kernel[0] // 2, kernel[1] // 2)
    layer = LiResConv2d(count, kernel, scale=scale, groups=groups, padding_mode=mode).double()
    randomise(layer, seed)
    plain = nn.Conv2d(count, count, kernel, padding=padding, groups=groups, padding_mode=mode).double()
    with torch.no_grad():
        plain.weight.copy_(layer.parametrizations.weight.original)
        plain.bias.zero_()
    with torch.no_grad():
        matrix, branch = dense(layer, (count, 5, 6)), dense(plain, (count, 5, 6))
    assert torch.allclose(matrix, torch.eye(len(matrix), dtype=torch.float64) + scale * branch, atol=1e-12)
    truth, bound = float(torch.linalg.matrix_norm(matrix, 2)), layer.lipschitz_bound((count, 5, 6))
    assert truth <= bound.value
    assert bound.value <= truth * (1 + 1e-8) or mode == "zeros"
    assert bound.exact or mode == "zeros"
    for axis, norm in ((0, "l1"), (1, "linf")):
        assert float(matrix.abs().sum(axis).max()) <= layer.lipschitz_bound((count, 5, 6), norm).value * (1 + 1e-12)


def test_the_norm_is_that_of_the_sum_and_not_the_sum_of_norms() -> None:
    # P = -I / 2: the sum has norm 1/2, the triangle inequality would say 3/2
    layer = LiResConv2d(2, 3).double()
    with torch.no_grad():
        layer.parametrizations.weight.original.zero_()
        layer.parametrizations.weight.original[[0, 1], [0, 1], 1, 1] = -0.5
    assert layer.lipschitz_bound((2, 4, 4)).value == pytest.approx(0.5, rel=1e-7)
    with torch.no_grad():
        layer.parametrizations.weight.original.zero_()
    assert layer.lipschitz_bound((2, 4, 4)).value == pytest.approx(1.0, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_export_copies_and_state(dtype: torch.dtype) -> None:
    layer, fresh = LiResConv2d(4, (3, 5), groups=2, scale=0.5), LiResConv2d(4, (3, 5), groups=2, scale=0.5)
    randomise(layer, 0)
    layer = layer.to(dtype)
    fresh = fresh.to(dtype)
    fresh.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    plain, twin, expected = layer.export(), copy.deepcopy(layer), layer(x)
    assert type(plain) is nn.Conv2d
    assert set(layer.state_dict()) == {"bias", "parametrizations.weight.original"}
    randomise(layer, 1)
    for other in (plain, twin, fresh):
        assert torch.equal(other(x), expected)
    with parametrize.cached():
        assert layer.weight is layer.weight


def test_contract_training_and_trained_weights() -> None:
    layer = LiResConv2d(2, 3, scale=0.5)
    check_lipschitz_layer(layer, (2, 4, 5))
    layer = layer.double()
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(10):
        norm = torch.linalg.matrix_norm(dense(layer, (2, 4, 4)), 2)
        bound = layer.lipschitz_bound((2, 4, 4)).value
        assert norm.item() <= bound <= 1.2 * norm.item()
        optimiser.zero_grad()
        (-norm).backward()
        optimiser.step()
    padding = ((1, 1), (1, 1))
    assert bound == pytest.approx(conv_norm(layer.weight, (4, 4), padding=padding).value, rel=0.1)


def test_refusals() -> None:
    with pytest.raises(HauberkError, match="odd kernels"):
        LiResConv2d(2, 4)
    with pytest.raises(HauberkError, match="replicate"):
        LiResConv2d(2, 3, padding_mode="replicate")
