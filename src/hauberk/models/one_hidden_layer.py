"""A network of one hidden layer of ReLU, certified in Linf by a semidefinite dual."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hauberk.classifier import Normalize
from hauberk.layers.one_hidden_layer import OneHiddenLayer
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Width


def one_hidden_layer(
    input_shape: Sequence[Width],
    num_classes: Width,
    mean: Sequence[float],
    std: Sequence[float],
    hidden: Width = 128,
) -> nn.Module:
    r"""Two dense layers with ReLU between them, and dual variables for each pair of classes.

    .. math:: f(x) = V\,\mathrm{relu}(W (x - \mu) + b) + a

    Train it with the objective ``semidefinite_dual``, certify it in Linf.  Images are centred by ``mean`` and not
    divided by ``std``.

    Args:
        input_shape: shape of one image, (C, H, W).
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: accepted as by every builder, kept in the spec, and not used.
        hidden: hidden units.

    Returns:
        an ``nn.Sequential`` from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Raises:
        HauberkError: if the arguments do not fit each other.

    Source: Raghunathan et al. 2018.
    """
    check_task(input_shape, num_classes, mean, std)
    last = OneHiddenLayer(math.prod(input_shape), hidden, num_classes)
    return with_spec(
        nn.Sequential(Normalize(mean, [1.0] * input_shape[0]), nn.Flatten(), last), "one_hidden_layer",
        input_shape=input_shape, num_classes=num_classes, mean=mean, std=std, hidden=hidden,
    )  # fmt: skip
