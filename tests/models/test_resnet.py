"""ResNet-18 for small images."""

from __future__ import annotations

import torch

from hauberk.models import resnet18
from hauberk.models.resnet import BasicBlock


def test_has_eighteen_layers_and_the_known_size() -> None:
    model = resnet18((3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3)
    # 11,173,962 parameters is the well-known size of this network on CIFAR-10
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    matrices = [n for n, p in model.named_parameters() if p.dim() > 1 and "shortcut" not in n]
    assert len(matrices) == 18


def test_block_adds_its_shortcut() -> None:
    block = BasicBlock(4, 4, 1).eval()
    features = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = (features + block.branch(features)).clamp_min(0)
    assert torch.equal(block(features), expected)
    assert BasicBlock(4, 6, 2).eval()(features).shape == (2, 6, 3, 3)
