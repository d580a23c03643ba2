"""Kept weights: computed once, the same answers, and nothing kept where a module may be gone before the next one."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from hauberk.attacks import APGD
from hauberk.batch import Batch
from hauberk.capabilities import Random
from hauberk.draws import drawn
from hauberk.layers import kept as kept_module
from hauberk.layers.kept import kept_weights
from hauberk.layers.spectral import SpectralScaling, spectral_conv
from hauberk.models.hycas_net import hycas_net
from hauberk.randomness import Key
from hauberk.threats import Linf


def _net():
    torch.manual_seed(0)
    return hycas_net((1, 8, 8), 3, (0.5,), (0.25,), widths=(4, 6), strides=(1, 2)).eval()


class _Counting(SpectralScaling):
    calls = 0

    def forward(self, weight):
        type(self).calls += 1
        return super().forward(weight)


class _Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class _MakesItsOwn(Random):
    """Each draw is a convolution with a kernel of its own."""

    def draw(self, key):
        torch.manual_seed(key.number)
        return spectral_conv(1, 1, 3)

    def forward(self, images):
        return images


@pytest.fixture
def everything_is_house(monkeypatch):
    monkeypatch.setattr(kept_module, "is_house", lambda cls: True)


def test_answers_are_the_same_to_the_last_bit():
    net, images = _net(), torch.rand(5, 1, 8, 8)
    keys = [Key(0, number, tuple(range(5)), "test") for number in range(3)]
    with torch.no_grad():
        before = [drawn(net, key)(images) for key in keys]
        with kept_weights(net):
            inside = [drawn(net, key)(images) for key in keys]
    assert all(map(torch.equal, before, inside))


def test_an_attack_finds_the_same_points():
    net, batch = _net(), Batch(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    attack = APGD(Linf(0.1), steps=5)
    before = attack(net, batch)
    with kept_weights(net):
        inside = attack(net, batch)
    assert torch.equal(before.adversarial, inside.adversarial)
    assert torch.equal(before.success, inside.success)


@pytest.mark.usefixtures("everything_is_house")
def test_a_weight_is_computed_once():
    layer = nn.Conv2d(1, 2, 3)
    parametrize.register_parametrization(layer, "weight", _Counting())
    _Counting.calls = 0
    with kept_weights(layer.eval()):
        for _ in range(4):
            layer(torch.rand(1, 1, 5, 5))
    assert _Counting.calls == 1
    layer(torch.rand(1, 1, 5, 5))
    assert _Counting.calls == 2


def test_modules_of_a_stranger_are_left_alone():
    layer = nn.Conv2d(1, 2, 3)
    parametrize.register_parametrization(layer, "weight", _Doubled())
    with kept_weights(layer):
        assert not parametrize._cache_enabled
    with kept_weights(_net()):
        assert parametrize._cache_enabled


@pytest.mark.usefixtures("everything_is_house")
def test_draws_that_make_parametrised_modules_are_not_mixed_up():
    with kept_weights(nn.Sequential(_MakesItsOwn())):
        assert not parametrize._cache_enabled


@pytest.mark.usefixtures("everything_is_house")
def test_a_parametrised_module_around_a_random_one_is_copied_by_each_draw_and_not_kept():
    net = hycas_net((1, 8, 8), 3, (0.5,), (0.25,), widths=(4,), strides=(1,)).eval()
    net.register_parameter("scale", nn.Parameter(torch.ones(1)))
    parametrize.register_parametrization(net, "scale", _Doubled())
    with kept_weights(net):
        assert not parametrize._cache_enabled
