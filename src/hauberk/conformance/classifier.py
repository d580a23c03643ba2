"""The classifier contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hauberk.attacks.gradients import attackable
from hauberk.boundary import check_logits
from hauberk.classifier import check_eval, traits
from hauberk.conformance.rules import require
from hauberk.draws import drawn, draws_by_key
from hauberk.randomness import Key


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
        if draws_by_key(model):
            _check_draws(model, images)
    blocked = declared.gradient == "none"
    with attackable(model):  # where a step blocks gradients its surrogate, or the identity, stands in
        leaf = images.clone().requires_grad_(True)
        total = model(leaf).logsumexp(1).sum() - model(leaf)[:, 0].sum()
        says = "the surrogate passes gradients on" if blocked else "gradients reach the image, or traits say 'none'"
        require(total.requires_grad, model, says)
        (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
    require(gradient is not None, model, says)
    require(bool(gradient.isfinite().all()), model, "gradients at the image are finite")
    require(bool((gradient != 0).any()), model, says, "all of them are zero")


def _check_draws(model: nn.Module, images: Tensor) -> None:
    """One draw is a function of the images, and a row's noise depends on its id and the number of the draw alone."""
    ids = tuple(range(10, 10 + len(images)))
    key = Key(0, 3, ids, "contract")
    before = torch.get_rng_state()
    net = drawn(model, key)
    logits = net(images)
    require(torch.equal(net(images), logits), model, "the net of one draw answers the same again")
    require(torch.equal(drawn(model, key)(images), logits), model, "a draw can be made again from its key")
    require(torch.equal(torch.get_rng_state(), before), model, "a draw leaves torch's global generator alone")
    others = (drawn(model, replace(key, number=n))(images) for n in range(4, 104))
    differ = any(not torch.equal(other, logits) for other in others)
    require(differ, model, "of a hundred draws one has other noise")
    last = drawn(model, replace(key, ids=ids[3:]))(images[3:])
    apart = torch.allclose(last, logits[3:], rtol=1e-4, atol=1e-5)
    require(apart, model, "a row's noise does not depend on the others")
