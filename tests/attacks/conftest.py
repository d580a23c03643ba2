import pytest
import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.classifier import Normalize


@pytest.fixture
def network() -> nn.Module:
    """A small network with kinks, so that attacks have something to climb."""
    torch.manual_seed(3)
    return nn.Sequential(
        Normalize([0.5], [0.2]), nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    ).eval()


@pytest.fixture
def batch(network: nn.Module) -> Batch:
    images = torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    labels = network(images).argmax(1)
    labels[0] = (labels[0] + 1) % 4  # one image is wrong before any attack
    return Batch(images, labels, torch.arange(10) + 50)
