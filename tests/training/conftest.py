from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from hauberk.data.dataset import Dataset
from hauberk.data.split import Split
from hauberk.runs import Run


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def blobs(name: str, count: int, first: int, noise: float) -> Split:
    """Three classes of 6x6 images: one third of the rows is brighter."""
    generator = torch.Generator().manual_seed(first)
    labels = torch.arange(count) % 3
    images = noise * torch.rand(count, 1, 6, 6, generator=generator)
    for k in range(3):
        images[labels == k, :, 2 * k : 2 * k + 2] += 0.5
    return Split(name, (255 * images.clamp(0, 1)).to(torch.uint8), labels, torch.arange(first, first + count))


@pytest.fixture
def dataset() -> Dataset:
    splits = [blobs("train", 96, 0, 0.9), blobs("val", 70, 96, 0.9), blobs("test", 9, 0, 0.9)]
    return Dataset("blobs", ("top", "middle", "bottom"), *splits)


@pytest.fixture
def network() -> Callable[[], nn.Module]:
    def build(norm: bool = True) -> nn.Module:
        torch.manual_seed(1)
        layers: list[nn.Module] = [nn.Conv2d(1, 4, 3)]
        if norm:
            layers.append(nn.BatchNorm2d(4))
        layers += [nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(64, 3)]
        return nn.Sequential(*layers)

    return build


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", {"name": "test"})
