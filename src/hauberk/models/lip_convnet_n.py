"""LipConvnet-N: five stages of 1-Lipschitz convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers.activations import MaxMin
from hauberk.layers.aol import AOLConv2d
from hauberk.layers.bcop import BCOPConv2d
from hauberk.layers.bro import BROConv2d
from hauberk.layers.cayley import CayleyConv2d, CayleyLinear
from hauberk.layers.householder import Householder1, Householder2
from hauberk.layers.lot import LOTConv2d
from hauberk.layers.shape import PadToMultiple
from hauberk.layers.soc import SOCConv2d
from hauberk.layers.unit_rows import UnitRowLinear
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Depth, Width

STAGES = 5
Size = tuple[int, int]
Made = Callable[[int, int, int, int, Size], nn.Module]  # channels in and out, kernel, stride, size

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "maxmin": lambda _: MaxMin(),
    "householder1": Householder1,
    "householder2": Householder2,
}


def _fitting(kernel: int, stride: int, size: Size) -> Size:
    """Kernels that are given per frequency must fit the feature map."""
    return min(kernel, size[0] // stride), min(kernel, size[1] // stride)


def _soc(terms: int, terms_train: int | None) -> Made:
    return lambda i, o, k, s, _: SOCConv2d(i, o, k, s, terms=terms, terms_train=terms_train)


CONVOLUTIONS: dict[str, Made] = {
    "soc": _soc(4, None),
    "soc8": _soc(8, None),
    "soc_published": _soc(12, 5),
    "aol": lambda i, o, k, s, _: AOLConv2d(i, o, k, stride=s, padding=k // 2),
    "bcop": lambda i, o, k, s, _: BCOPConv2d(i, o, max(k, s), s, padding=(max(k, s) - 1) // 2),
    "bro": lambda i, o, k, s, size: BROConv2d(i, o, _fitting(k, s, size), stride=s),
    "cayley": lambda i, o, k, s, size: CayleyConv2d(i, o, _fitting(k, s, size), size, stride=s),
    "lot": lambda i, o, k, s, size: LOTConv2d(i, o, _fitting(k, s, size), size, stride=s),
}
HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "orthogonal": CayleyLinear,
    "lln": UnitRowLinear,
}


def lip_convnet_n(  # noqa: PLR0913 - every choice of the papers
    input_shape: Sequence[Width],
    num_classes: Width,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    layers: Depth = 5,
    convolution: str = "soc",
    activation: str = "maxmin",
    last: str = "lln",
    width: Width = 32,
) -> nn.Module:
    r"""LipConvnet-N with skew orthogonal or other 1-Lipschitz convolutions, and a last layer that is orthogonal or LLN.

    N = 5 n convolutions in five stages: n - 1 of stride 1 with the width of the stage, then one of stride 2 that
    doubles it; kernels of 3x3, the last one of 1x1; an activation follows each.  Images are centred by ``mean`` and
    not divided by ``std``, which would raise the Lipschitz constant to 1 / min(std).  Odd sides are padded with zeros
    before a stride, and where both sides are 1 the stride is 1.

    Args:
        input_shape: shape of one image, (C, H, W).
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: accepted as by every builder, kept in the spec, and not used.
        layers: N, a multiple of 5.
        convolution: ``soc`` (4 terms, contractive), ``soc8``, ``soc_published`` (5 terms in training, 12 afterwards),
            ``aol``, ``bcop``, ``bro``, ``cayley`` or ``lot``.
        activation: ``maxmin``, ``householder1`` or ``householder2``.
        last: ``orthogonal`` rows, or rows of unit length (``lln``).
        width: channels of the first stage; its last convolution has twice as many.

    Returns:
        an ``nn.Sequential`` from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Raises:
        HauberkError: if the arguments do not fit each other.

    Source: Singla & Feizi 2021 (LipConvnet); Singla et al. 2022 (Householder activations, last-layer normalisation).
    """
    check_task(input_shape, num_classes, mean, std)
    for name, value, known in (
        ("convolution", convolution, CONVOLUTIONS),
        ("activation", activation, ACTIVATIONS),
        ("last", last, HEADS),
    ):
        if value not in known:
            raise HauberkError(f"there is no {name} {value!r}", f"one of: {', '.join(known)}")
    if layers < STAGES or layers % STAGES or width < 2 or width % 2:
        raise HauberkError(
            f"expected N a multiple of 5 and an even width, got {layers} and {width}", "for example layers=5, width=32"
        )
    channels, *size = input_shape
    make, act, n = CONVOLUTIONS[convolution], ACTIVATIONS[activation], layers // STAGES
    net: list[nn.Module] = [Normalize(mean, [1.0] * channels)]
    for stage in range(STAGES):
        for index in range(n):
            ends = index == n - 1
            out = width * 2 ** (stage + ends)
            kernel = 1 if stage == STAGES - 1 and ends else 3
            stride = 2 if ends and max(size) > 1 else 1
            if stride == 2 and any(side % 2 for side in size):
                net.append(PadToMultiple(2))
                size = [side + side % 2 for side in size]
            net += [make(channels, out, kernel, stride, (size[0], size[1])), act(out)]
            channels, size = out, [side // stride for side in size]
    net += [nn.Flatten(), HEADS[last](channels * size[0] * size[1], num_classes)]
    return with_spec(
        nn.Sequential(*net), "lip_convnet_n", input_shape=input_shape, num_classes=num_classes, mean=mean, std=std,
        layers=layers, convolution=convolution, activation=activation, last=last, width=width,
    )  # fmt: skip
