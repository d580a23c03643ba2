"""Orthogonal convolutions with an explicit kernel: orthonormal where they should be, contractions elsewhere."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers.bcop import BCOPConv2d


def dense(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Matrix of an affine layer, in float64, differentiable."""
    eye = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return (layer(eye) - layer(torch.zeros_like(eye))).flatten(1).T


def randomise(layer: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return layer.double().eval()


CASES = [  # in, out, kernel, stride, padding, groups
    (3, 3, 3, 1, 1, 1),
    (2, 5, 3, 1, "same", 1),
    (5, 2, (1, 3), 1, (0, 1), 1),
    (2, 3, 3, 2, 1, 1),  # fewer leave than enter
    (2, 12, 3, 2, 1, 1),  # more leave than enter
    (4, 6, 3, 2, 1, 2),
    (4, 2, 5, 1, 2, 2),
    (1, 1, 3, 1, 1, 1),
    (2, 4, (2, 4), (2, 1), (0, 1), 1),
    (2, 2, 4, 2, 1, 1),
    (1, 4, 2, 2, 0, 1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("mode", ["circular", "zeros"])
def test_orthonormal_under_circular_padding_and_a_contraction_under_zeros(case: tuple, mode: str) -> None:
    inputs = case[0]
    layer = randomise(BCOPConv2d(*case[:5], groups=case[5], padding_mode=mode, steps=40))
    shape = (inputs, 4, 6)
    matrix = dense(layer, shape).detach()
    bound = layer.lipschitz_bound(shape)
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= bound.value <= 1 + 1e-8
    if case[2] == (2, 4):
        return  # an even kernel leaves a row of outputs out
    if mode == "circular":
        small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        assert torch.allclose(small, torch.eye(len(small), dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("size", [(5, 5), (7, 4)])
@pytest.mark.parametrize("mode", ["circular", "zeros"])
def test_images_that_the_stride_does_not_divide_are_bounded_too(size: tuple[int, int], mode: str) -> None:
    layer = randomise(BCOPConv2d(2, 3, 3, 2, 1, padding_mode=mode))
    truth = float(torch.linalg.matrix_norm(dense(layer, (2, *size)).detach(), 2))
    bound = layer.lipschitz_bound((2, *size)).value
    assert truth <= bound
    assert mode == "circular" or bound <= 1 + 1e-8  # around the circle, blocks of the two ends overlap


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("mode", ["circular", "zeros"])
def test_a_contraction_however_few_the_steps_and_however_hard_it_is_pulled(steps: int, mode: str) -> None:
    layer = randomise(BCOPConv2d(2, 4, 3, 1, 1, padding_mode=mode, steps=steps, bias=False))
    optimiser = torch.optim.Adam(layer.parameters(), 0.1)
    for _ in range(20):
        optimiser.zero_grad()
        (-torch.linalg.matrix_norm(dense(layer, (2, 3, 4)), 2)).backward()
        optimiser.step()
    truth = float(torch.linalg.matrix_norm(dense(layer, (2, 3, 4)).detach(), 2))
    assert 0.9 < truth <= layer.lipschitz_bound((2, 3, 4)).value <= 1 + 1e-8


def polar(matrix: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


@pytest.mark.parametrize("kernel", [(3, 3), (5, 3), (3, 4)])
@pytest.mark.parametrize(("stride", "outputs"), [((1, 1), 4), ((2, 2), 3), ((2, 1), 8)])
def test_it_is_the_composition_of_its_blocks(kernel: tuple[int, int], stride: tuple[int, int], outputs: int) -> None:
    layer = randomise(BCOPConv2d(2, outputs, kernel, stride, bias=False, steps=40))
    parts = layer.parametrizations.weight[0]
    images = torch.randn(2, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    current = images if parts.widening is None else torch.einsum("oi,bihw->bohw", polar(parts.widening[0]), images)
    levels = [k - s for k, s in zip(kernel, stride, strict=True)]
    order = [(i, axis) for i in range(max(levels)) for axis in (0, 1) if i < levels[axis]]
    for block in reversed(range(len(order))):
        level, axis = order[block]
        basis = polar(parts.bases[0, block])
        shifted = current.roll(-1, 2 + axis)  # the pixel after this one
        first, second = (current, shifted) if level % 2 == 0 else (shifted, current)
        current = second + torch.einsum("oc,ci,bihw->bohw", basis, basis.T, first - second)
    inner = current.shape[1]
    outer = polar(layer.parametrizations.weight.original[0]).reshape(outputs, inner, *stride)
    expected = nn.functional.conv2d(current, outer, stride=stride)
    whole = nn.functional.conv2d(nn.functional.pad(images, (0, 4, 0, 4), mode="circular"), layer.weight, stride=stride)
    rows, columns = expected.shape[2:]
    assert torch.allclose(whole[:, :, :rows, :columns], expected, atol=1e-10)


@pytest.mark.parametrize("channels", [(3, 3), (2, 5), (5, 2), (1, 1)])
def test_it_starts_as_an_orthogonal_matrix_in_the_centre(channels: tuple[int, int]) -> None:
    kernel = BCOPConv2d(*channels, 5, padding=2).double().weight.detach()
    centre = kernel[:, :, 2, 2].clone()
    kernel[:, :, 2, 2] = 0.0
    assert float(kernel.abs().max()) < 1e-5
    assert torch.linalg.svdvals(centre).sub(1).abs().max() < 1e-5


def test_blocks_act_on_as_many_channels_as_stay_orthogonal() -> None:
    for channels, stride, inner in (((2, 5), 1, 5), ((5, 2), 1, 5), ((2, 12), 2, 3), ((2, 7), 2, 2)):
        assert BCOPConv2d(*channels, 3, stride).parametrizations.weight[0].bases.shape[2] == inner


def test_training_keeps_it_orthogonal_and_moves_it() -> None:
    layer = BCOPConv2d(4, 4, 3, padding=1, padding_mode="circular")
    images = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    goal = images.roll(1, 3)  # a shift is orthogonal
    optimiser = torch.optim.SGD(layer.parameters(), 1.0, momentum=0.9)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = (layer(images) - goal).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    matrix = dense(layer.double(), (4, 4, 4)).detach()
    assert torch.allclose(matrix @ matrix.T, torch.eye(64, dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("mode", ["circular", "zeros"])
def test_the_contract(mode: str) -> None:
    check_lipschitz_layer(BCOPConv2d(2, 3, 3, padding=1, padding_mode=mode), (2, 3, 4))
    check_lipschitz_layer(BCOPConv2d(4, 2, 3, 2, 1, groups=2, padding_mode=mode), (4, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_export_is_a_plain_convolution(dtype: torch.dtype) -> None:
    images = torch.randn(2, 4, 6, 6, dtype=dtype, generator=torch.Generator().manual_seed(1))
    for layer in (
        BCOPConv2d(4, 6, 3, 2, 1, groups=2, padding_mode="circular"),
        BCOPConv2d(4, 6, 3, padding="same", bias=False),
    ):
        layer = randomise(layer).to(dtype)
        plain = layer.export()
        assert type(plain) is nn.Conv2d
        assert not plain.training
        assert torch.equal(plain(images), layer(images))


@pytest.mark.parametrize("mode", ["circular", "zeros"])
def test_the_other_norms_are_sums_of_rows_and_columns(mode: str) -> None:
    layer = randomise(BCOPConv2d(2, 3, 3, 1, 1, padding_mode=mode))
    matrix = dense(layer, (2, 4, 4)).detach().abs()
    for norm, axis in (("linf", 1), ("l1", 0)):
        truth = float(matrix.sum(axis).max())
        assert truth <= layer.lipschitz_bound((2, 4, 4), norm).value <= truth * (1 + 1e-6)


def test_copies_state_cache_and_zeros() -> None:
    layer = BCOPConv2d(2, 4, 3, padding=1)
    twin, fresh = copy.deepcopy(layer), BCOPConv2d(2, 4, 3, padding=1)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(twin.weight, fresh.weight)
    with parametrize.cached():
        assert layer.weight is layer.weight
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
    layer(torch.ones(1, 2, 4, 4)).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in layer.parameters() if p.grad is not None)
    assert layer.lipschitz_bound((2, 4, 4)).value == 0.0


def test_refusals() -> None:
    with pytest.raises(HauberkError, match="reflect"):
        BCOPConv2d(2, 2, 3, padding_mode="reflect")
    with pytest.raises(HauberkError, match="skips pixels"):
        BCOPConv2d(2, 2, 2, 3)
    with pytest.raises(HauberkError, match="repeats outputs"):
        BCOPConv2d(2, 2, 3, padding=2, padding_mode="circular")
    with pytest.raises(HauberkError, match="repeats outputs"):
        BCOPConv2d(2, 2, 2, padding=1, padding_mode="circular")
    with pytest.raises(HauberkError, match="3 groups"):
        BCOPConv2d(2, 3, 3, groups=3)
    layer = BCOPConv2d(2, 2, 3)
    nn.init.constant_(layer.parametrizations.weight.original, math.nan)
    with pytest.raises(HauberkError, match="NaN"):
        layer.lipschitz_bound((2, 4, 4))


def test_an_even_kernel_is_orthonormal_with_padding_same() -> None:
    layer = randomise(BCOPConv2d(2, 3, (2, 4), padding="same", padding_mode="circular", steps=40))
    matrix = dense(layer, (2, 4, 6)).detach()
    assert torch.allclose(matrix.T @ matrix, torch.eye(48, dtype=torch.float64), atol=1e-5)
