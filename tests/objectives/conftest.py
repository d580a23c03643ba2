import pytest
import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.objectives.base import Context


class Linear(nn.Module):
    """Two classes with logits (0, f) and f = w.x + b, so that the true robust loss has a closed form."""

    def __init__(self, weight: torch.Tensor, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(torch.tensor(bias, dtype=weight.dtype))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        f = images.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(f), f], 1)


@pytest.fixture
def linear() -> Linear:
    generator = torch.Generator().manual_seed(5)
    return Linear(torch.randn(12, generator=generator, dtype=torch.float64), 0.3)


@pytest.fixture
def inner_batch() -> Batch:
    """Images far enough from the pixel box that a budget of 0.1 never meets it."""
    generator = torch.Generator().manual_seed(6)
    images = 0.3 + 0.4 * torch.rand(8, 3, 2, 2, generator=generator, dtype=torch.float64)
    return Batch(images, torch.tensor([0, 1] * 4), torch.arange(8))


@pytest.fixture
def context() -> Context:
    return Context(torch.Generator().manual_seed(7))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(8)
    return nn.Sequential(
        nn.Conv2d(3, 6, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6, 4)
    ).train()


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(9)
    return Batch(torch.rand(16, 3, 2, 2, generator=generator), torch.arange(16) % 4, torch.arange(16))
