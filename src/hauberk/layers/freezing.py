r"""A copy of a model whose numbers are fixed: computed once in the dtype of the model, then carried to float64.

A certificate is a proof about the frozen copy.  What each kind of layer computes from its parameters, and how it is
fixed:

========================================  ==============================================================================
layers                                    what is held
========================================  ==============================================================================
parametrised ones (AOL, BCOP, Björck,     every parametrised tensor, by its effective value: kernels, matrices (also
BRO linear, Cayley, LOT, SOC, CPL, SLL,   one for each frequency), directions, spline coefficients; the same for
LiRes, unit rows, spectral scaling,       parametrisations of torch and of the user
weight norm, directions, splines)
``BROConv2d``, ``SandwichConv2d``         the matrices at each frequency of the feature map (``derive``)
sandwich layers, splines                  exponentials of the scales (``derive``)
``Householder1``                          sines and cosines (``derive``)
``Householder2``                          the angles, which are parameters: only exact sines keep it continuous
``BatchCentring``                         the shift, mean less bias (``derive``)
``ConvexResidual``                        the two weights of the mean (``derive``)
batch norm of torch                       scale and shift of each channel, as torch computes them (``ChannelAffine``)
all others                                parameters and buffers as they are; nothing is computed from them but sums
                                          and products with features
========================================  ==============================================================================
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.layers.bound import Bound, unit_bound
from hauberk.layers.derived import Derived, stripped
from hauberk.layers.shape import ChannelAffine
from hauberk.layers.weight_hooks import plain_copy
from hauberk.randomness import fenced
from hauberk.threats import Norm

Shape = tuple[int, ...]


class ToFloat64(nn.Module):
    """Convert images of any precision to float64."""

    def forward(self, images: Tensor) -> Tensor:
        """The same values."""
        return images.double()

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002
        """One: every number of a lower precision is one of float64."""
        return unit_bound(norm, "identity")


def predictor(frozen: nn.Module) -> nn.Sequential:
    """A classifier of its own made of a frozen copy: from images of any floating dtype to float64 logits."""
    return nn.Sequential(OrderedDict(to_float64=ToFloat64(), layers=frozen)).eval()


@torch.no_grad()
def materialised(model: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """A copy in float64 whose derived numbers are those that the model computes in its own dtype; see the module.

    Args:
        model: in eval mode; it is not changed.
        input_shape: shape of one image, (C, H, W).

    Raises:
        HauberkError: if a layer is used for inputs of two shapes and its numbers depend on the shape.
    """
    spent = plain_copy(model).requires_grad_(False)
    _hold(spent, input_shape)
    plain = without_parametrisations(spent)
    for module in plain.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = _in_double(tensor)  # type: ignore[assignment]
    return plain


def _hold(model: nn.Module, input_shape: Sequence[int]) -> None:
    """Let every layer that derives numbers hold those for the inputs that reach it."""
    layers = [module for module in model.modules() if isinstance(module, Derived)]
    if not layers:
        return

    def hold(layer: Derived, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        layer.hold(inputs[0].shape[1:])  # and not the copy of it in a draw, which is called in its place

    handles = [layer.register_forward_pre_hook(partial(hold, layer)) for layer in layers]
    try:
        with fenced():  # what is random draws by itself here, and its numbers do not depend on what it draws
            model(probe(model, input_shape))
    finally:
        for handle in handles:
            handle.remove()


def probe(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """Two different images, in the dtype and on the device of the model."""
    tensors = (t for group in (model.parameters(), model.buffers()) for t in group if t.is_floating_point())
    images = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return images.to(next(tensors, torch.zeros(())))


def without_parametrisations(model: nn.Module) -> nn.Module:
    """The model with plain tensors of the values that they have now, in place; use the returned model."""
    return _plain(model, {})


def _plain(module: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    """The module without parametrisations, in place; what is used twice stays one module."""
    if id(module) not in done:
        plain = stripped(module) if parametrize.is_parametrized(module) else module
        done[id(module)] = plain = _affine(plain)
        for name, child in plain._modules.items():
            if child is not None:
                plain._modules[name] = _plain(child, done)
    return done[id(module)]


def _affine(layer: nn.Module) -> nn.Module:
    r"""Of batch norm with fixed statistics what it is then, :math:`a x + b`; else the layer itself."""
    if type(layer) not in (nn.BatchNorm1d, nn.BatchNorm2d):
        return layer
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)  # noqa: S101
    mean, variance = layer.running_mean, layer.running_var
    if layer.training or mean is None or variance is None:
        return layer
    scale = (variance + layer.eps).sqrt().reciprocal()
    scale = scale if layer.weight is None else scale * layer.weight
    # one rounding, as by the fused product and sum in torch's kernel
    removed = -mean.double() * scale.double()
    shift = removed if layer.bias is None else removed + layer.bias.double()
    return ChannelAffine(scale, shift.to(mean), removed.to(mean)).eval()


def _in_double(tensor: Tensor) -> Tensor:
    """The same numbers in float64; ``Module.double`` leaves complex ones as they are."""
    if tensor.is_complex():
        exact = tensor.to(torch.complex128)
    else:
        exact = tensor.double() if tensor.is_floating_point() else tensor
    return nn.Parameter(exact, requires_grad=False) if isinstance(tensor, nn.Parameter) else exact
