"""Dense nets of splines, SLL, CPL and sandwich layers: every layer has norm one, and pairs are those of the last."""

from __future__ import annotations

import pytest
import torch

from hauberk.errors import HauberkError
from hauberk.layers import CPLLinear, LinearSpline, SandwichLinear, SLLLinear, layer_bounds, pairwise_bounds
from hauberk.models import lip_mlp_n

KINDS = {"spline": LinearSpline, "sll": SLLLinear, "cpl": CPLLinear, "sandwich": SandwichLinear}


@pytest.mark.parametrize("layer", sorted(KINDS))
def test_no_layer_stretches_and_pairs_are_those_of_the_last(layer: str) -> None:
    torch.manual_seed(0)
    model = lip_mlp_n((1, 4, 4), 5, (0.3,), (0.1,), layer=layer, widths=(24, 12, 12)).double().eval()
    assert sum(isinstance(module, KINDS[layer]) for module in model) == 3
    bounds = [b.bound.value for b in layer_bounds(model, (1, 4, 4))]
    assert all(value <= 1.0 + 1e-6 for value in bounds[:-1])
    rows = model[-1].weight.detach()
    assert torch.allclose(pairwise_bounds(model, (1, 4, 4)), torch.cdist(rows, rows), rtol=1e-5, atol=1e-6)


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(HauberkError, match="layer: sll"):
        lip_mlp_n((1, 4, 4), 5, (0.3,), (0.1,), layer="soc")  # type: ignore[arg-type]
