"""DnCNN: the identity at first, the residual by hand, its shapes, and what is refused."""

import pytest
import torch
from torch.nn import functional

from hauberk.errors import HauberkError
from hauberk.models.dncnn import dncnn

NOISY = torch.rand(3, 2, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_training_starts_from_the_identity(batch_norm):
    net = dncnn(2, 4, 4, batch_norm)
    for mode in (True, False):
        assert torch.equal(net.train(mode)(NOISY), NOISY)


def test_what_its_convolutions_give_is_taken_off():
    torch.manual_seed(0)
    net = dncnn(2, 4, 2).eval()
    first, last = net.residual[0], net.residual[-1]
    torch.nn.init.normal_(last.weight)
    inside = functional.conv2d(NOISY, first.weight, first.bias, padding=1).relu()
    noise = functional.conv2d(inside, last.weight, padding=1)
    assert torch.allclose(net(NOISY), NOISY - noise, atol=1e-6)


def test_depth_counts_convolutions_and_the_paper_has_seventeen():
    for net, depth, norms in ((dncnn(), 17, 15), (dncnn(1, 8, 3, batch_norm=False), 3, 0)):
        found = [type(m).__name__ for m in net.modules()]
        assert (found.count("Conv2d"), found.count("BatchNorm2d")) == (depth, norms)


@pytest.mark.parametrize("settings", [{"depth": 1}, {"channels": 0}, {"width": 0}])
def test_impossible_networks_are_refused(settings):
    with pytest.raises(HauberkError, match="at least one channel and two convolutions"):
        dncnn(**settings)
