"""The frozen ensemble: the mean logits of a random model over fixed public draws."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from hauberk import registry
from hauberk.capabilities import Decides
from hauberk.draws import draws_by_key
from hauberk.errors import HauberkError
from hauberk.layers.draw_mean import DrawMean
from hauberk.layers.known import computes_as
from hauberk.models.building import with_spec
from hauberk.specs import Rows


def frozen_draws(base: nn.Module, draws: int, seed: int = 0) -> nn.Sequential:
    r"""The deterministic classifier :math:`\arg\max_c \tfrac1K \sum_k f_c(x; \omega_k)` of a random one.

    A linear layer at the end is applied once, to the mean of the features, which is the same: pairwise Lipschitz
    constants then need no factor of :math:`\sqrt2`.

    Args:
        base: f, whose random parts take their noise by key; its weights are shared.
        draws: K.
        seed: of the draws, at least 0.

    Raises:
        HauberkError: if the base has no such parts, or has a decision rule of its own.
    """
    if isinstance(base, Decides):
        raise HauberkError(
            f"{type(base).__name__} has a decision rule of its own, and only its logits would be used",
            "freeze the draws of the network inside it",
        )
    if not draws_by_key(base):
        raise HauberkError(
            f"{type(base).__name__} has no random parts whose draws a key can fix",
            "use the model without frozen_ensemble",
        )
    body, head = _split(base)
    made = nn.Sequential(OrderedDict(mean=DrawMean(body, draws, seed)))
    if head is not None:
        made.add_module("head", head)
    return made.train(base.training)


def frozen_ensemble(base: nn.Module, draws: Rows = 8, seed: int = 0) -> nn.Module:
    """Build the mean logits of a random model over fixed public draws.

    The draws are the same for all images, so that the model is attacked and certified like any deterministic net, and
    its certificate has no sampling error.  With one draw it is the random model with its noise frozen.

    Args:
        base: a built model, or in a spec its description.
        draws: how many.
        seed: of the draws, at least 0.

    Raises:
        HauberkError: if the base has no parts that take their noise by key, or has a decision rule of its own.
    """
    spec = registry.spec(base)
    return with_spec(frozen_draws(base, draws, seed), "frozen_ensemble", base=spec, draws=draws, seed=seed)


def _split(model: nn.Module) -> tuple[nn.Module, nn.Linear | None]:
    """A network without its last layer, and that layer, where it is a linear one; else the network as it is."""
    if type(model) is not nn.Sequential or len(model) < 2:
        return model, None
    *others, (name, last) = model._modules.items()  # also of a layer that stands in two places
    if last is None:
        return model, None
    if isinstance(last, nn.Linear) and computes_as(last, nn.Linear) and not draws_by_key(last):
        return nn.Sequential(OrderedDict(others)), last
    body, head = _split(last)
    return (model, None) if head is None else (nn.Sequential(OrderedDict([*others, (name, body)])), head)
