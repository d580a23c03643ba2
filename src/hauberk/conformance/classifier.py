"""The classifier contract."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from hauberk.boundary import check_logits
from hauberk.classifier import check_eval, traits
from hauberk.conformance.rules import require


def check_classifier(model: nn.Module, input_shape: Sequence[int]) -> None:
    """The classifier contract: logits, eval mode, no state, no dealings between rows, traits that are true.

    Args:
        model: in eval mode.
        input_shape: (C, H, W).

    Raises:
        HauberkError: naming the broken rule.
    """
    check_eval(model)
    declared = traits(model)
    images = torch.rand(5, *input_shape, generator=torch.Generator().manual_seed(0))
    images[0], images[1] = 0.0, 1.0
    kept = images.clone()
    with torch.no_grad():
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        logits = model(images)
        check_logits(logits, len(images))
        require(torch.equal(images, kept), model, "images are not changed in place")
        same = all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
        require(same, model, "a forward pass in eval mode changes no weight and no buffer")
        if not declared.stochastic:
            require(torch.equal(logits, model(images)), model, "two forward passes agree, or traits say stochastic")
            # of equal shape, because a kernel may round batches of another shape otherwise
            stays = torch.eye(5, dtype=torch.bool)[:, :, None, None, None]
            again = torch.cat([model(torch.where(s, images, 1.0 - images))[i : i + 1] for i, s in enumerate(stays)])
            require(torch.allclose(logits, again, rtol=1e-3, atol=1e-4), model, "a row does not depend on the others")
    if declared.gradient != "none":
        leaf = images.clone().requires_grad_(True)
        total = model(leaf).logsumexp(1).sum() - model(leaf)[:, 0].sum()
        require(total.requires_grad, model, "gradients reach the image, or traits say gradient='none'")
        (gradient,) = torch.autograd.grad(total, leaf)
        require(bool(gradient.isfinite().all()), model, "gradients at the image are finite")
