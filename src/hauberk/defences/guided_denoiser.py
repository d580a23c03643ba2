"""A denoiser that is trained against attacks, before a frozen classifier (Liao et al. 2018)."""

from __future__ import annotations

from torch import nn

from hauberk import registry
from hauberk.defences.purified import PurifiedClassifier
from hauberk.errors import HauberkError
from hauberk.models.building import with_spec


def guided_denoiser(base: nn.Module, denoiser: nn.Module) -> nn.Module:
    """Build a frozen classifier behind a denoiser, to be trained by ``guided_denoising``.

    Denoiser and classifier together are differentiable and deterministic, and are attacked as one model.

    Args:
        base: the classifier, a built model, or in a spec its description; it is frozen.
        denoiser: a network from images to images, such as ``dunet``; of a model that holds a guided denoiser, such as
            a run of one, its denoiser is taken.

    Raises:
        HauberkError: if the model holds several guided denoisers.
    """
    held = [m for m in denoiser.modules() if isinstance(m, PurifiedClassifier) and m.guided]
    if len(held) > 1:
        raise HauberkError(f"the model holds {len(held)} guided denoisers", "give the run of one of them")
    network = held[0].purifier if held else denoiser
    return with_spec(
        PurifiedClassifier(base, network, guided=True), "guided_denoiser", base=registry.spec(base),
        denoiser=registry.spec(network),
    )  # fmt: skip
