"""Two published CIFAR-10 nets, from weights that are not part of the repository.

The folder of the environment variable ``HAUBERK_MODELS`` holds ``cifar10_resnet20.safetensors`` (an accurate net,
Yerlan Idelbayev, pytorch_resnet_cifar10) and ``cifar10_resnet4b.safetensors`` (a robust one, the ResNet-4B of the
verification benchmarks, alpha-beta-CROWN).  From the folder of the repository:

    HAUBERK_MODELS=weights hauberk check reproductions.published_nets:resnet20 --data cifar10
"""

from __future__ import annotations

import os
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk.errors import HauberkError

FOLDER = "HAUBERK_MODELS"


class Normalised(nn.Module):
    """Images in [0, 1] to (x - mean) / std, channel by channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the same shape."""
        return (images - self.mean) / self.std


class PlainBlock(nn.Module):
    """Two convolutions with batch norm and a shortcut without weights: every second pixel, and channels of zeros.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution and of the shortcut.

    Reference: He, Zhang, Ren & Sun 2016, Section 4.2, option A.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, outputs, H / stride, W / stride)."""
        before = self.missing // 2
        shortcut = features[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, before, self.missing - before))
        inner = self.bn2(self.conv2(self.bn1(self.conv1(features)).relu()))
        return (inner + shortcut).relu()


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10: 16, 32 and 64 channels, three blocks each, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = _plain(16, 16, 1), _plain(16, 32, 2), _plain(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, 3, 32, 32) to logits (B, 10)."""
        features = self.bn1(self.conv1(self.normalise(images))).relu()
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


def _plain(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        PlainBlock(inputs, outputs, stride), PlainBlock(outputs, outputs, 1), PlainBlock(outputs, outputs, 1)
    )


class BiasedBlock(nn.Module):
    """Two convolutions with bias and no batch norm, and a 1x1 shortcut where the shape changes.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Sequential() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, outputs, H / stride, W / stride)."""
        inner: Tensor = self.conv2(self.conv1(features).relu())
        return (inner + self.shortcut(features)).relu()


class ResNet4B(nn.Module):
    """ResNet-4B of the verification benchmarks: a strided convolution, two stages of two blocks, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalised((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
        self.conv1 = nn.Conv2d(3, 16, 3, 2, 1)
        self.layer1 = nn.Sequential(BiasedBlock(16, 32, 2), BiasedBlock(32, 32, 1))
        self.layer2 = nn.Sequential(BiasedBlock(32, 32, 2), BiasedBlock(32, 32, 1))
        self.linear1, self.linear2 = nn.Linear(512, 100), nn.Linear(100, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, 3, 32, 32) to logits (B, 10)."""
        features = self.layer2(self.layer1(self.conv1(self.normalise(images)).relu()))
        logits: Tensor = self.linear2(self.linear1(features.flatten(1)).relu())
        return logits


def resnet20() -> nn.Module:
    """The accurate net."""
    return _loaded(ResNet20(), "cifar10_resnet20.safetensors")


def resnet4b() -> nn.Module:
    """The robust net."""
    return _loaded(ResNet4B(), "cifar10_resnet4b.safetensors")


def _loaded(model: nn.Module, name: str, folder: str | None = None) -> nn.Module:
    path = Path(folder or os.environ.get(FOLDER, "models")) / name
    if not path.is_file():
        raise HauberkError(f"there are no weights {path}", f"set {FOLDER} to the folder that holds them")
    known = model.state_dict()
    weights = safetensors.torch.load_file(path)
    counters = {key: value for key, value in known.items() if key.endswith("num_batches_tracked")}
    model.load_state_dict(counters | weights)
    return model.eval()
