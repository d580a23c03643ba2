"""What a model takes, by calling it and by its layers."""

import torch
from torch import nn

from hauberk.models.takes import sizes, tried


def test_a_call_shows_channels_and_size() -> None:
    dense = nn.Sequential(nn.Flatten(), nn.Linear(3 * 7 * 7, 2)).eval()
    assert [tried(dense, c, s) for c, s in ((3, 7), (1, 7), (3, 8))] == [True, False, False]
    assert sizes(dense) == (7,)
    anything = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert tried(anything, 1, 9) and tried(anything, 1, 30) and not tried(anything, 3, 9)
    assert sizes(anything) == ()


def test_trying_leaves_random_numbers_as_they_were() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2))
    before = torch.get_rng_state()
    assert tried(net, 1, 2)
    assert torch.equal(torch.get_rng_state(), before)
