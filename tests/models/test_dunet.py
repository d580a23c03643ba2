"""DUNET: the identity at the start, images of any size, and its settings."""

import pytest
import torch
from torch import nn

from hauberk import registry
from hauberk.errors import HauberkError
from hauberk.models.dunet import dunet


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 7, 5), (3, 3, 8, 8)])
def test_it_begins_as_the_identity_on_images_of_any_size(shape):
    images = torch.rand(shape)
    for mode in (True, False):
        assert torch.equal(dunet(3, (4, 6, 8), 2).train(mode)(images), images)


def test_every_level_reaches_the_result_once_the_last_layer_has_weights():
    torch.manual_seed(0)
    net = dunet(1, (4, 6, 8), 2).eval()
    nn.init.normal_(net.last.weight)
    images = torch.rand(2, 1, 8, 8)
    assert net(images).shape == images.shape
    (net(images) ** 2).sum().backward()
    assert all(bool((p.grad != 0).any()) for p in net.parameters())
    assert [level[0].stride for level in net.down] == [(1, 1), (2, 2), (2, 2)]


def test_features_of_the_same_size_go_around_the_deeper_levels():
    net = dunet(1, (4, 6), 1).eval()
    nn.init.constant_(net.last.weight, 1.0)
    with torch.no_grad():
        for parameter in net.down[1].parameters():
            parameter.zero_()  # nothing comes from below
        images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        first, second = net(images) - images
    assert not torch.allclose(first, second)


def test_settings():
    net = dunet(2, (4, 6), 1)
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == 2 + 1 + 1
    assert net.last.bias is None
    assert registry.spec(registry.build(registry.spec(net))) == registry.spec(net)
    for wrong in ((0, (4,), 1), (1, (), 1), (1, (4, 0), 1), (1, (4,), 0)):
        with pytest.raises(HauberkError, match="at least one channel, level and block"):
            dunet(*wrong)
