"""Residual networks for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hauberk.classifier import Normalize
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Width


class BasicBlock(nn.Module):
    r"""Two 3x3 convolutions around a shortcut, :math:`\mathrm{ReLU}(s(x) + g(x))`.

    The shortcut s is the identity, or a strided 1x1 convolution where the shape changes.

    Source: He et al. 2016, Eq. 1 and 2.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        stride: stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, C', H / stride, W / stride), rounded up."""
        return nn.functional.relu(self.shortcut(features) + self.branch(features))


def resnet18(
    input_shape: Sequence[Width], num_classes: Width, mean: Sequence[float], std: Sequence[float], width: Width = 64
) -> nn.Module:
    """ResNet-18 with a 3x3 stem and no pooling before the first stage.

    Args:
        input_shape: shape of one image, (C, H, W).
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: standard deviation of each channel.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.

    Returns:
        a classifier from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Raises:
        HauberkError: if the arguments do not fit each other.

    Source: He et al. 2016, Table 1.
    """
    check_task(input_shape, num_classes, mean, std)
    layers: list[nn.Module] = [
        Normalize(mean, std),
        nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    channels = width
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(BasicBlock(channels, width * 2**stage, stride))
            channels = width * 2**stage
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return with_spec(
        model, "resnet18", input_shape=input_shape, num_classes=num_classes, mean=mean, std=std, width=width
    )
