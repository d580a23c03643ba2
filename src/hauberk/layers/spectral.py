r"""Spectral normalisation: every weight is divided by an upper bound on its norm, never by an estimate from below.

``torch.nn.utils.parametrizations.spectral_norm`` does something else to a convolution: it divides by the norm of the
kernel reshaped to a matrix, found by power iteration.  The convolution itself may be ``spectral_norm_factor`` times as
large, and is for a constant kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError
from hauberk.layers.aol import SHRINK, start_orthogonal
from hauberk.layers.blocks import Pair, to_blocks
from hauberk.layers.gram import gram_bound
from hauberk.layers.norms import conv_layer_norm, linear_norm

Plain = nn.Linear | nn.Conv2d


def spectral_norm_factor(kernel_size: Sequence[int], stride: Sequence[int] = (1, 1)) -> float:
    r"""How much a convolution may exceed the norm of its reshaped kernel, :math:`\sqrt{\lceil k_h/s_h\rceil\lceil k_w/s_w\rceil}`.

    Each input pixel is read by so many windows.  It holds for zero padding, and for circular padding of sizes that the
    stride divides.

    Args:
        kernel_size: height and width.
        stride: one value an axis.

    Source: Tsuzuku et al. 2018 (stride 1).
    """  # noqa: E501
    return math.sqrt(math.prod(-(-k // s) for k, s in zip(kernel_size, stride, strict=True)))


def upper_norm(weight: Tensor, stride: Pair = (1, 1), groups: int = 1, oversampling: int = 6, steps: int = 5) -> Tensor:
    r"""A differentiable upper bound on the norm of a linear map or convolution, up to rounding.

    .. math:: \|K\| \le \Big(\prod_{a \in \{h, w\}} \cos\frac{\pi (k_a - 1)}{2 N_a}\Big)^{-1}
              \max_{\omega \in \mathrm{grid}} \overline\sigma_1(K(\omega))

    with :math:`\overline\sigma_1` the Gram bound and :math:`N_a = \mathrm{oversampling}\,(k_a - 1)` frequencies an
    axis.  Between frequencies of the grid, :math:`\langle u, K(\omega) v\rangle` is a trigonometric polynomial of
    degree (k - 1) / 2 on each axis, which falls no faster from its maximum than the cosine.  So the bound holds for
    images of any size, zero padding, and circular padding that repeats no outputs.

    Args:
        weight: shape (out, in), or (out, in / groups, kh, kw).
        stride: of a convolution without dilation, on sizes that it divides if the padding is circular: its kernel is
            then that of a stride 1 on blocks of pixels.  (1, 1) is right for every stride and dilation, but looser.
        groups: of the convolution.
        oversampling: at least 2; 4 loses 17 % on a square kernel, 6 loses 7 %, 12 loses 2 %.
        steps: products of matrices in the Gram bound.

    Returns:
        a scalar; 0 for a weight of zeros.

    Raises:
        HauberkError: if the oversampling is less than 2.

    Source: Delattre et al. 2023, Algorithm 1 (Gram bound); Ehlich & Zeller 1964 (maxima between samples).
    """
    if oversampling < 2:
        raise HauberkError(f"expected an oversampling of at least 2, got {oversampling}", "use for example 6")
    peak = weight.detach().abs().max()
    alive = peak > 0
    kernel = torch.where(alive, weight / torch.where(alive, peak, 1.0), 1.0)
    loss = 1.0
    if kernel.dim() == 4:
        kernel = to_blocks(kernel, stride)
        sizes = [max(1, oversampling * (k - 1)) for k in kernel.shape[2:]]
        loss = math.prod(math.cos(math.pi * (k - 1) / (2 * n)) for k, n in zip(kernel.shape[2:], sizes, strict=True))
        spectrum = torch.fft.rfft2(kernel, s=sizes).reshape(groups, -1, *kernel.shape[1:2], sizes[0], sizes[1] // 2 + 1)
        matrices = spectrum.permute(0, 3, 4, 1, 2).flatten(0, 2)
    else:
        matrices = kernel[None]
    return torch.where(alive, peak * _largest(matrices, steps) / loss, 0.0)


def unfolding_upper_norm(weight: Tensor, stride: Pair = (1, 1), groups: int = 1, steps: int = 5) -> Tensor:
    r"""A cheaper and looser bound than ``upper_norm``, from the kernel as two matrices.

    .. math:: \|K\| \le \sqrt{k_h k_w}\,\min(\overline\sigma_1(T), \overline\sigma_1(U))

    with T of shape (out, in kh kw), U of shape (out kh kw, in).  Each pixel is read by :math:`k_h k_w` windows, and by
    as many of the transpose.  On random kernels of 3 x 3 it is twice the norm, and costs a tenth of ``upper_norm``.

    Args:
        weight: as in ``upper_norm``.
        stride: as in ``upper_norm``.
        groups: as in ``upper_norm``.
        steps: as in ``upper_norm``.

    Returns:
        a scalar; 0 for a weight of zeros.

    Source: Singla & Feizi 2021, Theorem 1 (two of its four unfoldings).
    """
    peak = weight.detach().abs().max()
    alive = peak > 0
    kernel = torch.where(alive, weight / torch.where(alive, peak, 1.0), 1.0)
    kernel = kernel if kernel.dim() == 2 else to_blocks(kernel, stride)
    kernel = kernel.reshape(groups, -1, kernel.shape[1], kernel[0, 0].numel())
    outward = _largest(kernel.flatten(2), steps)
    inward = _largest(kernel.transpose(1, 2).flatten(2), steps)
    return torch.where(alive, peak * math.sqrt(kernel.shape[3]) * torch.minimum(outward, inward), 0.0)


def _largest(matrices: Tensor, steps: int) -> Tensor:
    """The largest of the matrices' Gram bounds."""
    # gradients pass through that one alone, so the others are not differentiated
    with torch.no_grad():
        chosen = gram_bound(matrices, steps).argmax() if len(matrices) > 1 else 0
    return gram_bound(matrices[chosen], steps)


class SpectralScaling(nn.Module):
    r"""Divide a weight by an upper bound on its norm, :math:`W = L\,P / \overline{\|P\|}`.

    A parametrisation for ``torch.nn.utils.parametrize``.  It keeps no state, so training and evaluation compute the
    same weight.  A weight of zeros stays zero.

    Args:
        target: L, the norm that is not exceeded.
        stride: as in ``upper_norm``.
        groups: of the convolution.
        oversampling: as in ``upper_norm``; 0 for the cheaper ``unfolding_upper_norm``.
    """

    def __init__(self, target: float = 1.0, stride: Pair = (1, 1), groups: int = 1, oversampling: int = 6) -> None:
        super().__init__()
        self.target, self.stride, self.groups, self.oversampling = target, stride, groups, oversampling

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, of the same shape as the free one."""
        if self.oversampling:
            bound = upper_norm(weight, self.stride, self.groups, self.oversampling)
        else:
            bound = unfolding_upper_norm(weight, self.stride, self.groups)
        alive = bound > 0
        return weight * torch.where(alive, self.target * SHRINK / torch.where(alive, bound, 1.0), 0.0)


def spectral_conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = True, oversampling: int = 6
) -> nn.Conv2d:
    """A convolution divided by an upper bound on its norm; the padding lets a stride of 1 keep the size.

    It starts as an orthogonal matrix in the centre of the kernel, so that a deep network keeps its signal.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: of a side.
        stride: of the convolution.
        bias: whether to add a bias.
        oversampling: as in ``SpectralScaling``.
    """
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=bias)
    with torch.no_grad():
        start_orthogonal(layer)
        if layer.bias is not None:
            layer.bias.zero_()
    parametrize.register_parametrization(layer, "weight", _scaling(layer, 1.0, oversampling))
    return layer


def normalise_spectral(model: nn.Module, target: float = 1.0, oversampling: int = 6) -> None:
    r"""Parametrise all m plain linear and convolutional layers of a model by ``SpectralScaling``, in place.

    .. math:: W_i = \frac{P_i}{\overline{\|P_i\|}}\,L^{1/m}, \qquad \prod_i \|W_i\| \le L

    Layers of other classes, such as ``AOLConv2d``, keep the norms that they have.

    Args:
        model: changed in place, before training.
        target: L, the product of the norms.
        oversampling: as in ``SpectralScaling``.

    Raises:
        HauberkError: if the model has no such layer, one has a parametrised weight already or pads by reflection, or
            the target is not positive.
    """
    layers = _plain_layers(model)
    share = _share(target, len(layers))
    for name, layer in layers.items():
        if parametrize.is_parametrized(layer, "weight"):
            raise HauberkError(f"the weight of layer {name!r} is parametrised already", "remove its parametrisation")
        if isinstance(layer, nn.Conv2d) and layer.padding_mode not in ("zeros", "circular"):
            raise HauberkError(
                f"layer {name!r} pads by {layer.padding_mode}, which has no known bound", "pad with zeros or circularly"
            )
    for layer in layers.values():
        parametrize.register_parametrization(layer, "weight", _scaling(layer, share, oversampling))


@torch.no_grad()
def project_spectral(
    model: nn.Module, input_shape: Sequence[int], target: float = 1.0, both_ways: bool = False
) -> None:
    r"""Shrink the weights of all m plain linear and convolutional layers to norms of at most :math:`L^{1/m}`, in place.

    .. math:: W_i \leftarrow W_i\,\min\big(1,\ L^{1/m} / \|W_i\|\big)

    With ``both_ways`` the minimum with 1 is left out, as the defence lecture prints it ("Spectral Normalization"):
    small weights grow too, and every norm ends at :math:`L^{1/m}`.  A layer of zeros stays as it is.

    To be called after an optimiser's step.  The norms are those that certificates use, for the shapes that reach each
    layer; biases and layers of other classes are left alone.

    Args:
        model: changed in place; a layer whose weight is parametrised must be within its share already.
        input_shape: shape of one image, (C, H, W).
        target: L, the product of the norms.
        both_ways: whether to enlarge weights of smaller norm.

    Raises:
        HauberkError: if the model has no such layer, one that cannot be shrunk exceeds its share, one has no known
            norm or NaN weights, or the target is not positive.
    """
    layers = _plain_layers(model)
    share = _share(target, len(layers))
    for name, shapes in _shapes_of_inputs(model, layers, input_shape).items():
        layer = layers[name]
        norm = max((_norm(layer, shape) for shape in shapes), default=0.0)
        if norm == 0.0 or (norm <= share and not both_ways):
            continue
        if parametrize.is_parametrized(layer, "weight"):
            raise HauberkError(
                f"the parametrised weight of layer {name!r} has norm {norm:.6g}, not {share:.6g}", "scale its source"
            )
        precision = 8.0 * torch.finfo(layer.weight.dtype).eps * math.sqrt(layer.weight[0].numel())
        layer.weight.mul_(share / norm * (1.0 - max(precision, 1e-8)))


def _norm(layer: Plain, shape: Sequence[int]) -> float:
    if isinstance(layer, nn.Linear):
        return linear_norm(layer.weight).value
    return conv_layer_norm(layer, shape).value


def _scaling(layer: Plain, target: float, oversampling: int) -> SpectralScaling:
    if isinstance(layer, nn.Linear):
        return SpectralScaling(target)
    # blocks of pixels close a circle only if its size is a multiple of the stride, and the size is not known here
    blocks = layer.padding_mode == "zeros" and tuple(layer.dilation) == (1, 1)
    stride = (layer.stride[0], layer.stride[1]) if blocks else (1, 1)
    return SpectralScaling(target, stride, layer.groups, oversampling)


def _plain_layers(model: nn.Module) -> dict[str, Plain]:
    """Layers that are exactly torch's own, by name."""
    plain = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, Plain) and parametrize.type_before_parametrizations(layer) in (nn.Linear, nn.Conv2d)
    }
    if not plain:
        raise HauberkError(
            "the model has no plain linear or convolutional layer",
            "use the model as it is: its layers have bounds of their own",
        )
    return plain


def _share(target: float, layers: int) -> float:
    if not (math.isfinite(target) and target > 0):
        raise HauberkError(f"expected a positive Lipschitz target, got {target}", "use for example 1.0")
    return float(target ** (1.0 / layers))


def _shapes_of_inputs(
    model: nn.Module, layers: dict[str, Plain], input_shape: Sequence[int]
) -> dict[str, set[tuple[int, ...]]]:
    """The shapes that reach each layer when one image passes in eval mode."""
    shapes: dict[str, set[tuple[int, ...]]] = {name: set() for name in layers}

    def note(name: str) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            shapes[name].add(tuple(inputs[0].shape[1:]))

        return layers[name].register_forward_pre_hook(hook)

    modes = {module: module.training for module in model.modules()}
    handles = [note(name) for name in layers]
    weight = next(iter(layers.values())).weight
    try:
        model.eval()(weight.new_zeros(1, *input_shape))
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
        for module, mode in modes.items():
            module.training = mode
    return shapes
