"""Bulk certification agrees with the certificate row by row, and exported nets compute the same."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.capabilities import Decides
from hauberk.certificates import FrozenLipschitz, LipschitzCertificate, freeze, lipschitz_radii
from hauberk.classifier import decide, predictor_name
from hauberk.errors import HauberkError
from hauberk.layers import BROLinear, UnitRowLinear, exported
from hauberk.models import lip_convnet, lip_convnet_n, lip_mlp

STATISTICS = ((0.4,), (0.2,))


class Deciding(nn.Sequential, Decides):
    """A network that decides in a way of its own."""



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
    other.__class__ = Deciding
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        FrozenLipschitz(other, (1, 8, 8))
    with pytest.raises(HauberkError, match="half precision"):
        FrozenLipschitz(nets()[2].half(), (1, 8, 8))
    with pytest.raises(HauberkError, match="train mode"):
        FrozenLipschitz(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)), (1, 8, 8))


def test_the_frozen_predictor_is_certified_saved_named_and_used() -> None:
    """One function: its logits are the evidence, its certificate is that of the model, and a file brings it back."""
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    batch = Batch(images, torch.zeros(6).long(), torch.arange(6))
    for net in nets():
        frozen, expected = freeze(net, (1, 8, 8)), LipschitzCertificate()(net, batch)
        with torch.no_grad():
            logits = frozen(images)
        evidence = torch.tensor([row["logits"] for row in expected.rows], dtype=torch.float64)
        assert logits.dtype == torch.float64
        assert torch.allclose(logits, evidence, rtol=1e-12)
        found = LipschitzCertificate()(frozen, batch)
        assert torch.allclose(found.radius, expected.radius, rtol=1e-9, atol=0)
        assert torch.equal(decide(frozen, batch), expected.prediction)
        other = freeze(net, (1, 8, 8))
        with torch.no_grad():
            for value in other.state_dict().values():
                value.mul_(2)
        assert predictor_name(other) != predictor_name(frozen)
        other.load_state_dict(frozen.state_dict())
        assert predictor_name(other) == predictor_name(frozen) != predictor_name(net)
        assert torch.equal(other(images), logits)


def test_what_cannot_be_certified_cannot_be_frozen() -> None:
    deciding = nets()[2]
    deciding.__class__ = Deciding
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        freeze(deciding, (1, 8, 8))
    with pytest.raises(HauberkError, match="half precision"):
        freeze(nets()[2].half(), (1, 8, 8))
    with pytest.raises(HauberkError, match="train mode"):
        freeze(nets()[2].train(), (1, 8, 8))
    with pytest.raises(HauberkError, match="no Lipschitz bound for layer '1'"):
        freeze(nn.Sequential(nn.Flatten(), nn.GELU(), nn.Linear(64, 2)).eval(), (1, 8, 8))
    with pytest.raises(HauberkError, match="no Lipschitz bound for layer '1'"):
        freeze(nn.Sequential(nn.Flatten(), nn.Linear(63, 2)).eval(), (1, 8, 8))


@pytest.mark.parametrize("seed", range(5))
def test_a_full_rank_reflector_is_certified_as_it_is_deployed(seed: int) -> None:
    """Its ridge depends on the dtype: in float64 it is another matrix, nearly -I."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), BROLinear(64, 64, rank=64), nn.Linear(64, 2)).eval()
    image = torch.rand(1, 1, 8, 8)
    found = LipschitzCertificate()(net, Batch(image, torch.zeros(1).long(), torch.arange(1)))
    with torch.no_grad():
        gap = net(image)[0].double().diff().abs()
        speed = ((net[2].weight[0] - net[2].weight[1]).double() @ net[1].weight.double()).norm()
    assert 0.0 < float(found.radius) <= float(gap / speed) * (1.0 + 1e-4)


@pytest.mark.parametrize("tiny", [1e-20, 1e-23, 1e-30, 1e-42, 0.0])
def test_a_tiny_row_is_certified_as_it_is_deployed(tiny: float) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), UnitRowLinear(8, 3)).eval()
    with torch.no_grad():
        net[1].parametrizations.weight.original[1] = -tiny * torch.ones(8)
        expected = net[1].weight.double()
    frozen = freeze(net, (1, 2, 4))
    assert torch.equal(frozen.layers[1].weight, expected)
    assert frozen(torch.rand(2, 1, 2, 4)).dtype == torch.float64
