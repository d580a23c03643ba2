"""The gate: whether a function may be certified.  Every certificate passes its model through here.

**Where the proof walks the function** (Lipschitz nets, and the composite itself: a mix, a smoothed classifier) it must
compute what its types say, see ``layers.walkable``; composites are of exactly the known types, with the settings that
their builders allow.

**Where the proof treats it as a black box** (the base under smoothing, the accurate half of a mix, an estimate)
any model is allowed, hooks included, that is repeatable and answers each row by itself, see ``black_box``.

The class compared at the image is that of the deployed classifier as a whole, ``decided``: a tie, an overflow or a NaN
there abstains.

The gate cannot detect changes inside torch's compiled code, constants that were changed in a module, and changes
between the check and the use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk import registry
from hauberk.batch import Batch
from hauberk.boundary import check_uncompiled
from hauberk.certificates.black_box import BlackBox
from hauberk.classifier import ABSTAIN, Decides, check_eval, classes, decide, logits_of
from hauberk.defences.adaptive_mixed import AdaptiveMixedClassifier
from hauberk.defences.bottom_class import BottomClass
from hauberk.defences.denoised import check_sigma
from hauberk.defences.derandomised import DerandomisedClassifier
from hauberk.defences.mixed import MixedClassifier
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.draws import drawn, draws_by_key
from hauberk.errors import HauberkError
from hauberk.layers.walkable import (
    check_as_written,
    check_class,
    check_module,
    check_parametrisations,
    check_walkable,
    is_house,
    plain_type,
)
from hauberk.noises import Noise
from hauberk.randomness import PublicDraw

_seen: dict[tuple[int, str, float], tuple[nn.Module, BlackBox]] | None = None


@contextmanager
def admitted_once() -> Iterator[None]:
    """Inside, models do not change, so that each black box is probed once, and once more at each later check."""
    global _seen
    before = _seen
    _seen = {} if before is None else before
    try:
        yield
    finally:
        _seen = before


# --- the proof walks it -----------------------------------------------------------------------------------------


def check_walked(model: nn.Module, random: bool = False) -> None:
    """Raise unless the model is one that a walk is a proof about: its types, its code, its weights.

    Args:
        model: a classifier.
        random: whether the proof is about all of its draws, so that it may take noise by key.

    Raises:
        HauberkError: on hooks, patches, replaced methods, bent subclasses, random weights, another way of deciding,
            weights of half precision, or a cache of parametrised weights.
    """
    if isinstance(model, Decides):
        raise HauberkError(
            f"{type(model).__name__} has a decision rule of its own and does not decide by its largest logit",
            "certify the network inside it, or use the certificate for this kind of model",
        )
    if draws_by_key(model) and not random:
        raise HauberkError(
            f"{type(model).__name__} draws noise in every call, so that its answer is not fixed",
            "certify one draw of it: hauberk.draws.drawn(model, key)",
        )
    if parametrize._cache_enabled:
        raise HauberkError(
            "parametrised weights are cached and may be out of date", "certify outside of parametrize.cached()"
        )
    check_uncompiled(model)
    check_walkable(model)
    check_as_written()
    check_parametrisations(model)
    tensors = [t for t in model.state_dict().values() if isinstance(t, Tensor)]
    plain = [m for m in model.modules() if type(m).__module__.startswith("torch.nn.")]  # ours may hold spectra
    if any(p.is_complex() or p.layout is not torch.strided for m in plain for p in m.parameters(recurse=False)):
        raise HauberkError(
            "the model has complex or sparse weights, for which no bound is known", "use dense, real weights"
        )
    if any(t.is_floating_point() and t.element_size() < 4 for t in tensors):
        raise HauberkError(
            "the weights have half precision, and its rounding errors are larger than a certificate allows",
            "certify model.float()",
        )


@contextmanager
def walked(model: nn.Module, images: Tensor, tile: int, random: bool = False) -> Iterator[None]:
    """``check_walked``; where a layer is neither torch's nor Hauberk's the model is also asked as a black box."""
    check_walked(model, random)
    if all(is_house(plain_type(module)) for module in model.modules()):
        yield
        return
    with black_box(model, images, tile, random=random):
        yield


_CERTIFIED = SmoothedClassifier | DerandomisedClassifier | BottomClass  # they decide as their certificates know


def check_composite(model: nn.Module, *known: type[nn.Module]) -> None:
    """Raise unless the model itself, whatever its parts are, is of exactly a known type and as that type says.

    Raises:
        HauberkError: on a subclass, a hook, a replaced method, a patch, or a setting that no builder gives.
    """
    if type(model) not in known:
        names = " or ".join(cls.__name__ for cls in known)
        raise HauberkError(
            f"expected exactly {names}, got {type(model).__name__}: what a subclass computes is not proved",
            "make one with the library's own builder, for example: hauberk mix",
        )
    check_eval(model)
    check_module(model, "model")
    for cls in type(model).__mro__:
        check_class(cls)
    check_as_written()
    if isinstance(model, Decides) and not isinstance(model, _CERTIFIED):
        raise HauberkError(
            f"{type(model).__name__} has a decision rule of its own, which is not proved", "remove its method decide"
        )
    _check_settings(model)


def _check_settings(model: nn.Module) -> None:
    """Settings may have been changed after the builder looked at them."""
    if isinstance(model, MixedClassifier):
        top = model.alpha_max if isinstance(model, AdaptiveMixedClassifier) else model.alpha
        scales = (model.accurate_scale, model.robust_scale)
        fair = all(type(v) in {int, float} for v in (model.alpha, top, *scales))
        if not (fair and 0.0 <= model.alpha <= top <= 1.0 and all(0.0 < s < math.inf for s in scales)):
            raise HauberkError(
                f"expected weights in [0, 1] and positive scales, got {model.alpha}, {top} and {scales}",
                "build the mix again with such values",
            )
    if isinstance(model, BottomClass) and not (type(model.eps) in {int, float} and 0.0 < model.eps < math.inf):
        raise HauberkError(f"expected a radius above 0 in the model, got {model.eps}", "build it again")
    if isinstance(model, DerandomisedClassifier) and not (
        type(model.splits) is int and model.splits >= 2 and type(model.seed) is int
    ):
        raise HauberkError(
            f"expected a number of splits and a seed in the model, got {model.splits} and {model.seed}",
            "build it again",
        )
    if isinstance(model, SmoothedClassifier):
        if not isinstance(model.noise, Noise):
            raise HauberkError(
                f"expected a noise distribution, got {type(model.noise).__name__}", "see: hauberk list noises"
            )
        registry.spec(model.noise)  # a subclass of a registered family has no spec: what it draws is not proved


def check_part(model: nn.Module) -> None:
    """Raise if a part answers otherwise than by its logits, which are all that a mix or a vote reads of it."""
    if isinstance(model, Decides) and not isinstance(model, SmoothedClassifier):
        raise HauberkError(
            f"{type(model).__name__} has a decision rule of its own, and only its logits would be used",
            "use the network inside it",
        )


# --- the proof does not look inside -----------------------------------------------------------------------------


@contextmanager
def black_box(
    model: nn.Module, images: Tensor, tile: int, sigma: float = 0.0, role: str = "model", random: bool = False
) -> Iterator[None]:
    """The model is a function of one image, before and after what is done inside; a random one where that is allowed.

    Of a model that takes its noise by key, which ``random`` allows, one draw is asked in its place.

    Raises:
        HauberkError: see ``BlackBox``; and on a denoiser for other noise.
    """
    check_eval(model)
    if sigma:
        check_sigma(model, sigma)
    key = (id(model), role, sigma)
    known, box = (None, None) if _seen is None else _seen.get(key, (None, None))
    if box is None or known is not model:
        one = drawn(model, PublicDraw(0, 0)) if random else model
        box = BlackBox(one, images, tile, sigma, role)
        if _seen is not None:
            _seen[key] = model, box
    yield
    box.again()


# --- what the deployed classifier says ---------------------------------------------------------------------------


@torch.no_grad()
def decided(model: nn.Module, batch: Batch, seed: int, tile: int) -> Tensor:
    """The classes of the deployed classifier, (B,) int64; -1 where it abstains, ties, overflows or gives NaN."""
    if isinstance(model, Decides):
        return decide(model, batch, seed, tile)
    return winners(logits_of(model, batch, tile))


def winners(logits: Tensor) -> Tensor:
    """The class that is strictly ahead in each row, (B,); -1 where there is none or a logit is not finite."""
    top = logits.topk(2, dim=1)
    return torch.where(top.values[:, 0] > top.values[:, 1], classes(logits), ABSTAIN)
