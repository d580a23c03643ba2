"""Zero-padding keeps lengths."""

from __future__ import annotations

import pytest
import torch

from hauberk.layers import PadToMultiple


@pytest.mark.parametrize(("size", "padded"), [((5, 4), (6, 4)), ((7, 3), (8, 4)), ((8, 6), (8, 6))])
def test_pads_below_and_right(size: tuple[int, int], padded: tuple[int, int]) -> None:
    features = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    out = PadToMultiple(2)(features)
    assert out.shape == (2, 3, *padded)
    assert torch.equal(out[:, :, : size[0], : size[1]], features)
    assert float(out.norm()) == pytest.approx(float(features.norm()))
    assert repr(PadToMultiple(2)) == "PadToMultiple(2)"
