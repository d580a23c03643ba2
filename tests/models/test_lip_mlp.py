"""Dense orthogonal net: its layers are isometries or projections, and its bound is that of the last layer."""

from __future__ import annotations

import pytest
import torch

from hauberk.errors import HauberkError
from hauberk.layers import layer_bounds, pairwise_bounds
from hauberk.models import lip_mlp


def test_every_layer_but_the_last_has_norm_one() -> None:
    model = lip_mlp((1, 4, 4), 5, (0.3,), (0.1,), widths=(24, 12)).double().eval()
    bounds = [b.bound.value for b in layer_bounds(model, (1, 4, 4))]
    assert bounds[:-1] == pytest.approx([1.0] * 6)
    rows = model[-1].weight.detach()
    apart = torch.cdist(rows, rows)
    assert torch.allclose(pairwise_bounds(model, (1, 4, 4)), apart, rtol=1e-6, atol=1e-9)


def test_gradients_keep_their_norm_where_layers_widen() -> None:
    model = lip_mlp((1, 4, 4), 5, (0.3,), (0.1,), widths=(16, 16)).double().eval()
    image = torch.rand(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    model(image)[0, 2].backward()
    assert float(image.grad.norm()) == pytest.approx(1.0, rel=1e-6)  # the row of the last layer has unit length


def test_odd_widths_are_refused() -> None:
    with pytest.raises(HauberkError, match="even widths"):
        lip_mlp((1, 4, 4), 5, (0.3,), (0.1,), widths=(7,))
