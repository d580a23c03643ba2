"""A last layer whose rows have unit length."""

import torch
from torch import nn

from hauberk.conformance import check_lipschitz_layer
from hauberk.layers import UnitRowLinear, linear_norm


def test_the_contract() -> None:
    check_lipschitz_layer(UnitRowLinear(7, 5), (7,))


def test_unit_rows() -> None:
    layer = UnitRowLinear(5, 3)
    layer.parametrizations.weight.original.data = 7.0 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(layer.weight.norm(dim=1), torch.ones(3))
    with torch.no_grad():
        layer.parametrizations.weight.original[0] = 0.0
    assert layer.weight[0].tolist() == [0.0] * 5
    for norm in ("l1", "l2", "linf"):
        assert layer.lipschitz_bound((5,), norm) == linear_norm(layer.weight, norm)


def test_its_export_is_a_plain_layer_that_computes_the_same() -> None:
    layer = UnitRowLinear(100, 7, bias=False).eval()
    features = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    plain = layer.export()
    assert type(plain) is nn.Linear
    assert torch.equal(plain(features), layer(features))
