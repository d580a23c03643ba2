"""Networks of hybrid convolutions (HyCAS), at most 1- or 2-Lipschitz by construction, or as printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers.activations import MaxMin
from hauberk.layers.attention_noise import Granularity, Mode, Source
from hauberk.layers.gate import ConvexGate, Weights
from hauberk.layers.hycas import Filters, HyCASConv2d, HyCASSettings
from hauberk.layers.residual import ConvexResidual
from hauberk.layers.spectral import spectral_conv
from hauberk.layers.unit_rows import UnitRowLinear
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Width

Backbone = Literal["small", "resnet18", "resnet50", "resnet110"]
Budget = Literal["1", "2", "as_printed"]
Conv = Callable[[int, int, int, int], nn.Module]  # channels in and out, kernel, stride
BLOCKS: dict[str, tuple[int, ...]] = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet110": (18, 18, 18)}
EXPANSION = 4  # of a bottleneck


def hycas_net(  # noqa: PLR0913 - every choice of the paper
    input_shape: Sequence[Width],
    num_classes: Width,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    backbone: Backbone = "small",
    budget: Budget | int = "1",
    widths: Sequence[Width] = (32, 64, 64, 128, 128, 256),
    strides: Sequence[Width] = (1, 2, 1, 2, 1, 2),
    width: Width = 64,
    streams: Sequence[str] = ("fdpan", "sncan", "rpfan"),
    gate: Weights = "scalar",
    noise: Mode | None = "halved",
    tau: float = 0.5,
    strength: float = 0.5,
    granularity: Granularity = "channel",
    source: Source = "static",
    filters: Filters = "frozen",
    keep: float = 0.5,
) -> nn.Module:
    r"""A backbone whose every convolution is a ``HyCASConv2d``, with MaxMin, convex residuals and unit rows at the end.

    The budget fixes the bound that is proved for every draw of the noise, in L2, for the features before the last
    layer, whose rows have unit length:

    - ``1``: no step stretches;
    - ``2``: the same, but the attention after the last convolution's gate multiplies by up to 2, once;
    - ``as_printed``: every attention multiplies by up to 2 and the gates weigh channels, so that the constant grows as
      :math:`2^k` and more with the number k of attentions one after the other.  The walk reports it.

    Images are centred by ``mean`` and not divided by ``std``, which would raise the constant to 1 / min(std).  There is
    no batch norm.

    Args:
        input_shape: shape of one image, (C, H, W).
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: accepted as by every builder, kept in the spec, and not used.
        backbone: ``small`` (``widths`` and ``strides``), ``resnet18``, ``resnet50`` (bottlenecks) or ``resnet110``
            (three stages).  The stem is 3x3; from 128 pixels a side it has a stride of 2.
        budget: see above.
        widths: of the small backbone, even.
        strides: of the small backbone.
        width: channels of the first stage of a residual backbone, even; the later stages have 2, 4 and 8 times as many.
        streams: see ``HyCASConv2d``.
        gate: ``scalar`` or ``channel``, see ``ConvexGate``.
        noise: how masks are applied, ``mask`` or ``halved``; None leaves all attention out.
        tau: see ``AttentionNoise``.
        strength: see ``AttentionNoise``.
        granularity: see ``AttentionNoise``.
        source: see ``AttentionNoise``; with ``attention`` only smoothing gives a certificate.
        filters: ``frozen``, or drawn for each ``draw`` or each ``sample``.
        keep: see ``LowPass``.

    Returns:
        an ``nn.Sequential`` from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Raises:
        HauberkError: if the arguments do not fit each other.

    Source: Dhar et al. 2026 (HyCAS), with bounds that hold.
    """
    check_task(input_shape, num_classes, mean, std)
    _check(str(budget), backbone, [*widths, width], strides, noise)
    settings = HyCASSettings(tuple(streams), gate, noise, tau, strength, granularity, source, filters, keep)
    if str(budget) == "as_printed":
        settings = replace(settings, noise="full", weights="channel")

    def conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
        return HyCASConv2d(inputs, outputs, kernel, stride, settings)

    channels, *size = input_shape
    net: list[nn.Module] = [Normalize(mean, [1.0] * channels)]
    if backbone == "small":
        for out, stride in zip(widths, strides, strict=True):
            net += [conv(channels, out, 3, stride), MaxMin()]
            channels, size = out, _strided(size, stride)
    else:
        stem = 2 if min(size) >= 128 else 1
        net += [conv(channels, width, 3, stem), MaxMin()]
        channels, size = width, _strided(size, stem)
        for stage, blocks in enumerate(BLOCKS[backbone]):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                out = width * 2**stage * (EXPANSION if backbone == "resnet50" else 1)
                net += [_block(conv, channels, out, stride, bottleneck=backbone == "resnet50"), MaxMin()]
                channels, size = out, _strided(size, stride)
    if str(budget) == "2":
        _full_once(net, settings)
    net += [nn.Flatten(), UnitRowLinear(channels * size[0] * size[1], num_classes)]
    return with_spec(
        nn.Sequential(*net), "hycas_net", input_shape=input_shape, num_classes=num_classes, mean=mean, std=std,
        backbone=backbone, budget=budget, widths=widths, strides=strides, width=width, streams=streams, gate=gate,
        noise=noise, tau=tau, strength=strength, granularity=granularity, source=source, filters=filters, keep=keep,
    )  # fmt: skip


def gate_shares(model: nn.Module) -> dict[str, dict[str, float]]:
    """The mean share of each stream in every gate of a network, by the gate's name.

    Args:
        model: a network with gates.

    Returns:
        shares by the numbers of the streams; they add up to 1.
    """
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, ConvexGate):
            shares = module.logits.detach().softmax(0).mean(1)
            found[name] = {str(number): float(share) for number, share in enumerate(shares)}
    return found


def _block(conv: Conv, inputs: int, outputs: int, stride: int, bottleneck: bool) -> nn.Module:
    """A convex residual around two convolutions of 3x3, or around 1x1, 3x3 and 1x1 with a quarter of the channels."""
    if bottleneck:
        inner = outputs // EXPANSION
        narrow = [conv(inputs, inner, 1, 1), MaxMin(), conv(inner, inner, 3, stride), MaxMin()]
        parts = [*narrow, conv(inner, outputs, 1, 1)]
    else:
        parts = [conv(inputs, outputs, 3, stride), MaxMin(), conv(outputs, outputs, 3, 1)]
    changes = stride > 1 or inputs != outputs
    shortcut = spectral_conv(inputs, outputs, 1, stride) if changes else None
    return ConvexResidual(nn.Sequential(*parts), shortcut=shortcut)


def _full_once(net: list[nn.Module], settings: HyCASSettings) -> None:
    """Put the one full attention after the last features: after the last gate, or after the last residual."""
    last = net[-2]
    if isinstance(last, HyCASConv2d):
        gate = last.layers[0]
        assert isinstance(gate, ConvexGate)  # noqa: S101 - it stands first
        last.layers = nn.Sequential(gate, *settings.masks(gate.channels, "full"))
    else:
        final = [m for m in last.modules() if isinstance(m, ConvexGate)][-1]
        net[-1:-1] = settings.masks(final.channels, "full")


def _strided(size: Sequence[int], stride: int) -> list[int]:
    return [-(-side // stride) for side in size]


def _check(budget: str, backbone: str, widths: Sequence[int], strides: Sequence[int], noise: str | None) -> None:
    for name, value, known in (("budget", budget, Budget), ("backbone", backbone, Backbone)):
        if value not in get_args(known):
            raise HauberkError(f"there is no {name} {value!r}", f"one of: {', '.join(get_args(known))}")
    if any(w < 2 or w % 2 for w in widths) or len(widths) != len(strides) + 1 or not strides:
        raise HauberkError(
            f"expected even widths, and a stride for each of the small backbone, got {list(widths[:-1])} and "
            f"{list(strides)}", "for example widths (32, 64) with strides (1, 2)",
        )  # fmt: skip
    if noise == "full" or (budget != "1" and noise is None):
        raise HauberkError(
            f"noise {noise!r} does not fit the budget {budget}",
            "noise: halved or mask; budget: as_printed has full masks everywhere, budget: 2 one of them",
        )


