"""Residual nets of SLL and CPL layers: nothing stretches, bounds hold where they are tried, pairs are the last's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hauberk.errors import HauberkError
from hauberk.layers import CPLConv2d, CPLLinear, SLLConv2d, SLLLinear, layer_bounds, model_bound, pairwise_bounds
from hauberk.models import lip_resnet

KINDS = {"sll": (SLLConv2d, SLLLinear), "cpl": (CPLConv2d, CPLLinear)}


def net(layer: str, shape: tuple[int, int, int] = (1, 6, 5)) -> nn.Sequential:
    torch.manual_seed(0)
    made = lip_resnet(shape, 5, (0.3,) * shape[0], (0.1,) * shape[0], layer=layer, widths=(6, 24), pool=2, dense=1)  # type: ignore[arg-type]
    assert isinstance(made, nn.Sequential)
    return made.double().eval()


@pytest.mark.parametrize("layer", sorted(KINDS))
def test_no_layer_stretches_and_pairs_are_those_of_the_last(layer: str) -> None:
    model = net(layer)
    conv, linear = KINDS[layer]
    assert sum(isinstance(module, conv) for module in model) == 4
    assert sum(isinstance(module, linear) for module in model) == 1
    assert all(b.bound.value <= 1.0 + 1e-6 for b in layer_bounds(model, (1, 6, 5))[:-1])
    rows = model[-1].weight.detach()
    assert torch.allclose(pairwise_bounds(model, (1, 6, 5)), torch.cdist(rows, rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", sorted(KINDS))
def test_no_jacobian_is_longer_than_the_bound(layer: str) -> None:
    model = net(layer)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=weight.dtype))
    bound = model_bound(model, (1, 6, 5)).value
    points = torch.rand(20, 1, 6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    longest = 0.0
    for point in points:
        jacobian = torch.autograd.functional.jacobian(model, point[None]).reshape(5, -1)
        longest = max(longest, float(torch.linalg.matrix_norm(jacobian, 2)))
    assert 0.05 * bound < longest <= bound  # and the bound is of that size


def test_an_isometry_up_to_the_blocks() -> None:
    model = net("sll", (1, 8, 8))
    parts = [m for m in model if not isinstance(m, SLLConv2d | SLLLinear)][1:7]  # unshuffling and padding alone
    image = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    assert torch.allclose(nn.Sequential(*parts)(image).flatten(1).norm(dim=1), image.flatten(1).norm(dim=1))


@pytest.mark.parametrize(("layer", "widths"), [("soc", (6, 24)), ("sll", ()), ("sll", (3,)), ("sll", (6, 20))])
def test_what_does_not_fit_is_refused(layer: str, widths: tuple[int, ...]) -> None:
    with pytest.raises(HauberkError, match=r"layer: sll, widths: \[4, 16\]"):
        lip_resnet((1, 4, 4), 5, (0.3,), (0.1,), layer=layer, widths=widths)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["depth", "pool", "dense"])
def test_a_count_below_one_is_refused(name: str) -> None:
    with pytest.raises(HauberkError, match="at least 1"):
        lip_resnet((1, 4, 4), 5, (0.3,), (0.1,), widths=(4,), **{name: 0})  # type: ignore[arg-type]
