"""DnCNN: a small convolutional denoiser that predicts the noise (Zhang et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from hauberk.capabilities import Traits
from hauberk.errors import HauberkError
from hauberk.models.building import with_spec
from hauberk.specs import Depth, Width


class DnCNN(nn.Module):
    r"""Images minus the noise that a convolutional network predicts, :math:`D(y) = y - R(y)`.

    The network R is a 3x3 convolution with ReLU, some of them with batch norm between, and a last 3x3 convolution to
    the channels of the image.  The last one begins at zero, so that training starts from the identity.  The result is
    not clipped to [0, 1].

    Args:
        channels: of the images.
        width: channels inside.
        depth: convolutions, at least 2.
        batch_norm: whether batch norm follows the convolutions between the first and the last.

    Source: Zhang et al. 2017, Section III (17 convolutions of 64 channels).
    """

    traits = Traits()

    def __init__(self, channels: int, width: int, depth: int, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers.append(nn.Conv2d(width, width, 3, padding=1, bias=not batch_norm))
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
        last = nn.Conv2d(width, channels, 3, padding=1)
        assert last.bias is not None  # noqa: S101 - torch's default
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.residual = nn.Sequential(*layers, last)

    def forward(self, images: Tensor) -> Tensor:
        """Noisy images (B, C, H, W) to denoised ones of the same shape."""
        noise: Tensor = self.residual(images)
        return images - noise


def dncnn(channels: Width = 3, width: Width = 64, depth: Depth = 17, batch_norm: bool = True) -> nn.Module:
    """Build an untrained DnCNN, which is the denoiser of ``denoised`` and not a classifier by itself.

    Args:
        channels: of the images.
        width: channels inside.
        depth: 3x3 convolutions, at least 2.
        batch_norm: whether batch norm follows the convolutions between the first and the last.

    Returns:
        a network from (B, C, H, W) to the same shape; ``spec`` holds this call.

    Raises:
        HauberkError: if there are no channels, or fewer than two convolutions.
    """
    if min(channels, width) < 1 or depth < 2:
        raise HauberkError(
            f"expected at least one channel and two convolutions, got {channels} and {width} channels, depth {depth}",
            "for example width 64, depth 17",
        )
    network = DnCNN(channels, width, depth, batch_norm)
    return with_spec(network, "dncnn", channels=channels, width=width, depth=depth, batch_norm=batch_norm)
