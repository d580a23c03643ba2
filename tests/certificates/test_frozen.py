"""Bulk certification agrees with the certificate row by row, and exported nets compute the same."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.certificates import FrozenLipschitz, LipschitzCertificate, lipschitz_radii
from hauberk.errors import HauberkError
from hauberk.layers import exported
from hauberk.models import lip_convnet, lip_convnet_n, lip_mlp

STATISTICS = ((0.4,), (0.2,))


def nets() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        lip_convnet((1, 8, 8), 5, *STATISTICS, widths=(4, 6), hidden=8).eval(),
        lip_convnet_n((1, 8, 8), 5, *STATISTICS, width=2, activation="householder2", last="orthogonal").eval(),
        lip_mlp((1, 8, 8), 5, *STATISTICS, widths=(16, 8)).eval(),
        lip_convnet_n((1, 8, 8), 5, *STATISTICS, width=2, convolution="cayley").eval(),
    ]


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("index", range(4))
def test_as_the_certificate_row_by_row(index: int, norm: str) -> None:
    net, images = nets()[index], torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = LipschitzCertificate(norm)(net, Batch(images, torch.zeros(20).long(), torch.arange(20)))
    classes, radii = FrozenLipschitz(net, (1, 8, 8), norm)(images, tile=7)
    assert torch.equal(classes, expected.prediction)
    assert torch.allclose(radii, expected.radius, rtol=1e-9, atol=0)
    assert bool((radii > 0).any())


def test_ties_unknown_speeds_and_broken_logits_give_nothing() -> None:
    nan, inf = math.nan, math.inf
    logits = torch.tensor([[1.0, 1, 0], [nan, 1, 0], [inf, 1, 0], [3.0, 1, 0], [3.0, 1, 2]], dtype=torch.float64)
    pairwise = torch.tensor([[0.0, 2, 4], [2, 0, 1], [4, 1, 0]], dtype=torch.float64)
    classes, radii = lipschitz_radii(logits, pairwise)
    assert classes.tolist() == [0, -1, -1, 0, 0]
    assert radii.tolist()[:3] == [0.0, 0.0, 0.0]
    assert radii[3] == pytest.approx(0.75)
    assert float(radii[3]) < 0.75
    assert radii[4] == pytest.approx(0.25)
    assert lipschitz_radii(logits, torch.full((3, 3), nan, dtype=torch.float64))[1].tolist() == [0.0] * 5
    assert lipschitz_radii(logits, torch.zeros(3, 3, dtype=torch.float64))[1].tolist() == [0.0] * 5  # a constant net


def test_exported_nets_have_no_parametrisation_and_the_same_outputs() -> None:
    images = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    for net in nets():
        exact = net.double()
        plain = exported(exact)
        assert not any(hasattr(m, "parametrizations") or m.training for m in plain.modules())
        assert torch.allclose(plain(images), exact(images), rtol=1e-12, atol=1e-12)
        assert any(hasattr(m, "parametrizations") for m in exact.modules())  # the original is as it was


def test_what_the_certificate_refuses_is_refused() -> None:
    other = nets()[2]
    other.decide = lambda images, ids, seed: torch.zeros(len(images)).long()  # type: ignore[assignment]
    with pytest.raises(HauberkError, match="decides in a way of its own"):
        FrozenLipschitz(other, (1, 8, 8))
    with pytest.raises(HauberkError, match="half precision"):
        FrozenLipschitz(nets()[2].half(), (1, 8, 8))
    with pytest.raises(HauberkError, match="train mode"):
        FrozenLipschitz(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)), (1, 8, 8))
