"""Convolutions by a matrix for every frequency: they are torch's circular convolutions, and know their norm."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers.cayley import CayleyConv2d
from hauberk.layers.frequency import FrequencyConv2d
from hauberk.layers.lot import LOTConv2d
from hauberk.layers.norms import conv_norm


def dense(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Matrix of an affine layer, in float64, differentiable."""
    eye = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return (layer(eye) - layer(torch.zeros_like(eye))).flatten(1).T


def randomise(layer: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return layer.double().eval()


CASES = [  # in, out, kernel, size, stride
    (2, 2, 3, (4, 5), 1),
    (2, 3, 3, (5, 4), 1),
    (3, 2, (1, 3), (3, 3), 1),
    (2, 3, 2, (4, 6), 2),
    (1, 5, 2, (4, 4), 2),
    (2, 2, 4, (4, 4), 1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", [CayleyConv2d, LOTConv2d])
def test_rows_or_columns_are_orthonormal(kind: type[FrequencyConv2d], case: tuple) -> None:
    inputs, outputs, kernel, size, stride = case
    more = {"steps": 40} if kind is LOTConv2d else {}
    layer = randomise(kind(inputs, outputs, kernel, size, stride=stride, **more))
    with torch.no_grad():
        matrix = dense(layer, (inputs, *size))
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    assert torch.allclose(small, torch.eye(len(small), dtype=torch.float64), atol=1e-5)
    bound = layer.lipschitz_bound((inputs, *size))
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= bound.value <= 1 + 1e-8


@pytest.mark.parametrize("kernel", [1, 2, 3, (3, 4)])
def test_without_orthogonalising_it_is_the_circular_convolution_of_torch(kernel: int | tuple[int, int]) -> None:
    layer = randomise(FrequencyConv2d(2, 3, kernel, (5, 4), nn.Identity()))
    peer = nn.Conv2d(2, 3, kernel, padding="same", padding_mode="circular").double()
    peer.load_state_dict({"weight": layer.parametrizations.weight.original, "bias": layer.bias})
    images = torch.randn(2, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(layer(images), peer(images), atol=1e-12)
    # and its bound is neither 1 nor what was intended, but what the matrices have
    even = kernel == 2 or kernel == (3, 4)
    sides = [(kernel, kernel) if isinstance(kernel, int) else kernel][0]
    pads = tuple(((k - 1) // 2, k // 2) for k in sides)
    expected = conv_norm(peer.weight, (5, 4), padding=pads if even or sides != (1, 1) else ((0, 0), (0, 0)),
                         padding_mode="circular").value  # fmt: skip
    bound = layer.lipschitz_bound((2, 5, 4))
    assert bound.value == pytest.approx(expected, rel=1e-8)
    assert bound.exact


def test_the_bound_looks_at_all_frequencies() -> None:
    layer = FrequencyConv2d(1, 1, (2, 1), 16, nn.Identity())
    with torch.no_grad():  # differences of rows: 2 at the highest frequency, of the second half of the rows
        layer.parametrizations.weight.original.copy_(torch.tensor([1.0, -1.0]).reshape(1, 1, 2, 1))
    assert layer.lipschitz_bound((1, 16, 16)).value == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("kind", [CayleyConv2d, LOTConv2d])
def test_the_contract(kind: type[FrequencyConv2d]) -> None:
    check_lipschitz_layer(kind(2, 3, 3, (3, 4)), (2, 3, 4))
    check_lipschitz_layer(kind(2, 3, 1, 4, stride=2), (2, 4, 4))


@pytest.mark.parametrize("kind", [CayleyConv2d, LOTConv2d])
def test_weights_trained_to_stretch_do_not(kind: type[FrequencyConv2d]) -> None:
    layer = randomise(kind(2, 2, 3, 3, bias=False, **({"steps": 3} if kind is LOTConv2d else {})))
    optimiser = torch.optim.Adam(layer.parameters(), 0.1)
    for _ in range(30):
        optimiser.zero_grad()
        (-torch.linalg.matrix_norm(dense(layer, (2, 3, 3)), 2)).backward()
        optimiser.step()
    truth = float(torch.linalg.matrix_norm(dense(layer, (2, 3, 3)), 2).detach())
    assert 0.99 < truth <= layer.lipschitz_bound((2, 3, 3)).value <= 1 + 1e-8


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("kind", [CayleyConv2d, LOTConv2d])
def test_export_is_a_plain_convolution_as_large_as_the_image(
    kind: type[FrequencyConv2d], dtype: torch.dtype, tolerance: float
) -> None:
    for layer in (kind(2, 3, 3, (5, 4)), kind(2, 3, 2, (4, 6), stride=2, bias=False)):
        layer = layer.to(dtype).eval()
        images = torch.randn(2, 2, *layer.size, dtype=dtype, generator=torch.Generator().manual_seed(1))
        plain = layer.export()
        assert {type(m) for m in plain.modules()} <= {nn.Sequential, nn.PixelUnshuffle, nn.Conv2d}
        assert torch.allclose(plain(images), layer(images), atol=tolerance)
        assert not plain.training


@pytest.mark.parametrize("kind", [CayleyConv2d, LOTConv2d])
def test_copies_state_cache_and_zeros(kind: type[FrequencyConv2d]) -> None:
    layer = kind(2, 2, 3, 4)
    twin, fresh = copy.deepcopy(layer), kind(2, 2, 3, 4)
    fresh.load_state_dict(layer.state_dict())
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    layer(torch.ones(1, 2, 4, 4))[:, 0].square().sum().backward()
    optimiser.step()
    assert torch.equal(twin.weight, fresh.weight)
    assert not torch.equal(twin.weight, layer.weight)
    with parametrize.cached():
        assert layer.weight is layer.weight
    nn.init.zeros_(layer.parametrizations.weight.original)
    layer(torch.ones(1, 2, 4, 4)).sum().backward()
    assert bool(layer.parametrizations.weight.original.grad.isfinite().all())
    assert layer.lipschitz_bound((2, 4, 4)).value <= 1 + 1e-8


def test_refusals() -> None:
    layer = CayleyConv2d(2, 2, 3, 4)
    with pytest.raises(HauberkError, match=r"\(2, 4, 4\), got \(2, 4, 5\)"):
        layer(torch.zeros(1, 2, 4, 5))
    with pytest.raises(HauberkError, match="got"):
        layer.lipschitz_bound((2, 8, 8))
    with pytest.raises(HauberkError, match="l1"):
        layer.lipschitz_bound((2, 4, 4), "l1")
    with pytest.raises(HauberkError, match="does not fit"):
        CayleyConv2d(2, 2, 3, 4, stride=2)
    with pytest.raises(HauberkError, match="does not fit"):
        LOTConv2d(2, 2, 1, 5, stride=2)
    nn.init.constant_(layer.parametrizations.weight.original, math.nan)
    with pytest.raises(HauberkError, match="NaN"):
        layer.lipschitz_bound((2, 4, 4))


def test_it_says_what_it_is() -> None:
    assert "size=(4, 6), stride=2" in repr(LOTConv2d(1, 2, 1, (4, 6), stride=2))
