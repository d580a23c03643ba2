"""The adaptive mixed classifier: a network chooses the robust model's weight for each image (Bai et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, TypeVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk import registry
from hauberk.attacks.losses import AttackLoss, attack_loss, targeted_loss
from hauberk.capabilities import NamedOutputs
from hauberk.classifier import Traits, evaluating, predictor_name, weights_hash
from hauberk.defences.activations import activations_of
from hauberk.defences.mixed import MixedClassifier, opinion
from hauberk.errors import HauberkError
from hauberk.models.mixing_net import MixingNetwork, concatenated
from hauberk.specs import Depth, Width
from hauberk.threats import CONFIG

Taps = tuple[str, str]
Pair = tuple[float, float]
T = TypeVar("T")


class AdaptiveMixedClassifier(MixedClassifier, NamedOutputs):
    r"""Two frozen classifiers mixed with a weight that depends on the image.

    .. math:: \alpha(x) = \alpha_{\min} + (\alpha_{\max} - \alpha_{\min})\,\sigma(t(x)), \qquad t = a\,s(x) + b

    with the standardised score s of the mixing network.  The range holds in eval mode; in training it is (0, 1), so
    that the attacks that the network learns from can exploit it fully (Section D.1).  What is proved for the constant
    weight :math:`\alpha_{\min}` holds for every :math:`\alpha(x)` of the range, since the margin that the robust model
    needs, :math:`(1-\alpha)/\alpha`, falls with :math:`\alpha`.

    The bases need no gradient, stay in eval mode whatever the mode of the whole, and run once in a forward pass.

    Args:
        accurate: the accurate model g.
        robust: the robust model h.
        mixing: from the bases' features to one number for each image, see ``hauberk.models.mixing_net``.
        accurate_taps: names of the two modules of g, lower one first, whose outputs the mixing network reads.
        robust_taps: those of h.
        alpha_min: least weight of the robust model in eval mode; it is the attribute ``alpha`` too.
        alpha_max: largest weight; if both are equal, this is exactly the constant mix.
        logit: (a, b) in eval mode; b moves between clean and robust accuracy without training again.
        training_logit: (a, b) in training and for the attacks of training.
        accurate_scale: factor on g's logits before the softmax.
        robust_scale: factor on h's logits before the softmax.
    """

    def __init__(  # noqa: PLR0913 - what a mix is made of
        self,
        accurate: nn.Module,
        robust: nn.Module,
        mixing: nn.Module,
        accurate_taps: Taps,
        robust_taps: Taps,
        *,
        alpha_min: float,
        alpha_max: float,
        logit: Pair = (2.0, 1.0),
        training_logit: Pair = (2.0, 0.4),
        accurate_scale: float = 1.0,
        robust_scale: float = 1.0,
    ) -> None:
        super().__init__(accurate, robust, alpha_min, accurate_scale, robust_scale)
        if not alpha_min <= alpha_max <= 1.0:
            raise HauberkError(
                f"expected a range of alpha in [0, 1], got ({alpha_min}, {alpha_max})",
                "alpha_min must not exceed alpha_max",
            )
        if not (logit[0] > 0.0 and training_logit[0] > 0.0):
            raise HauberkError(
                f"expected positive factors of the score, got {logit[0]} and {training_logit[0]}",
                "with a negative factor, attacked images would be treated as clean ones",
            )
        self.mixing, self.alpha_max = mixing, alpha_max
        self.accurate_taps, self.robust_taps = accurate_taps, robust_taps
        self.logit, self.training_logit = logit, training_logit
        self.accurate.requires_grad_(False)
        self.robust.requires_grad_(False)
        self.train(self.training)

    @property
    def predictor(self) -> str:
        """How records call it."""
        shape = f"alpha={self.alpha!r}..{self.alpha_max!r}, scales={self.accurate_scale!r}/{self.robust_scale!r}"
        network = f"logit={self.logit!r}, taps={self.accurate_taps!r}/{self.robust_taps!r}, {weights_hash(self.mixing)}"
        bases = f"{predictor_name(self.accurate)}, {predictor_name(self.robust)}"
        return f"adaptive_mixed({shape}, {network}, {bases})"

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the mixing network; the bases stay in eval mode."""
        super().train(mode)
        self.accurate.eval()
        self.robust.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to log-probabilities (B, K)."""
        return self.mix(images)["logits"]

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """The logits of the mix, its weights and the logits of its bases.

        Returns:
            ``logits`` (B, K); ``alpha`` (B,) and ``alpha_logit`` (B,), the t before the sigmoid; ``accurate`` and
            ``robust`` (B, K), the bases' logits with their scales.
        """
        return self.mix(images)

    @property
    def adaptive_losses(self) -> tuple[AttackLoss, ...]:
        """The losses that an adaptive attack adds to AutoAttack (attack setting D, Section 4.2)."""
        return (AlphaDown(),)

    def parts(self) -> dict[str, nn.Module]:
        """The bases, and ``gray_box``: the whole, with no gradient through alpha (attack setting A, Section 4.2)."""
        return super().parts() | {"gray_box": MixView(self, gray_box=True)}

    def mix(self, images: Tensor, gray_box: bool = False, as_trained: bool | None = None) -> dict[str, Tensor]:
        """The named outputs.

        Args:
            images: (B, C, H, W).
            gray_box: let no gradient pass through alpha.
            as_trained: use the range and the factors of training; None does so in train mode.
        """
        as_trained = self.training if as_trained is None else as_trained
        accurate, own = activations_of(self.accurate, self.accurate_taps, images.clone())  # it may work in place
        robust, other = activations_of(self.robust, self.robust_taps, images.clone())
        accurate, robust = opinion(self.accurate_scale * accurate), self.robust_scale * robust
        scale, shift = self.training_logit if as_trained else self.logit
        with torch.set_grad_enabled(torch.is_grad_enabled() and not gray_box):
            logit = scale * self.mixing(*zip(own, other, strict=True)) + shift
            logit = torch.where(logit.isnan(), 0.0, logit)  # the weight stays in its range
        low, high = (0.0, 1.0) if as_trained else (self.alpha, self.alpha_max)
        rest, weight = log_weights(logit, low, high)
        logits = torch.logaddexp(rest[:, None] + accurate.log_softmax(1), weight[:, None] + robust.log_softmax(1))
        alpha = (low + (high - low) * logit.sigmoid()).clamp(low, high)
        return {"logits": logits, "alpha": alpha, "alpha_logit": logit, "accurate": accurate, "robust": robust}


class MixView(nn.Module, NamedOutputs):
    """An adaptive mix as an attack sees it: the same function, without part of its gradient or with training's range.

    Args:
        model: the mix; its weights are shared.
        gray_box: let no gradient pass through alpha.
        as_trained: use the range and the factors of training, whatever the mode; None does so in train mode.
    """

    traits = Traits()

    def __init__(self, model: AdaptiveMixedClassifier, gray_box: bool = False, as_trained: bool | None = None) -> None:
        super().__init__()
        self.model, self.gray_box, self.as_trained = model, gray_box, as_trained
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to log-probabilities (B, K)."""
        return self.outputs(images)["logits"]

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """As those of the mix."""
        return self.model.mix(images, self.gray_box, self.as_trained)


def log_weights(logit: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    r""":math:`\log(1 - \alpha)` and :math:`\log\alpha` for :math:`\alpha = l + (h - l)\,\sigma(t)`, each (B,).

    Written with :math:`1 - \alpha = (1 - h) + (h - l)\,\sigma(-t)`, so that neither loses its digits nor its gradient
    where the sigmoid is 0 or 1 in floating point.

    Args:
        logit: t, (B,).
        low: l, in [0, h].
        high: h, in [l, 1].
    """
    if low == high:
        return torch.full_like(logit, _log_rest(low)), torch.full_like(logit, _log(low))
    width = math.log(high - low)
    rest = torch.logaddexp(torch.full_like(logit, _log_rest(high)), width + functional.logsigmoid(-logit))
    weight = torch.logaddexp(torch.full_like(logit, _log(low)), width + functional.logsigmoid(logit))
    # rounding must not lead out of the range
    return rest.clamp(_log_rest(high), _log_rest(low)), weight.clamp(_log(low), _log(high))


def _log(alpha: float) -> float:
    return math.log(alpha) if alpha > 0.0 else -math.inf


def _log_rest(alpha: float) -> float:
    return math.log1p(-alpha) if alpha < 1.0 else -math.inf


def adaptive_mixed(  # noqa: PLR0913, PLR0917 - what a mix is made of
    accurate: nn.Module,
    robust: nn.Module,
    accurate_taps: Sequence[str],
    robust_taps: Sequence[str],
    alpha_min: float,
    alpha_max: float,
    widths: Sequence[Width] = (16, 32, 32),
    blocks: Depth = 1,
    momentum: float = 0.1,
    logit: Sequence[float] = (2.0, 1.0),
    training_logit: Sequence[float] = (2.0, 0.4),
    accurate_scale: float = 1.0,
    robust_scale: float = 1.0,
    input_shape: Sequence[Width] | None = None,
) -> AdaptiveMixedClassifier:
    """Build an adaptive mix with an untrained mixing network; the bases are frozen by it.

    Args:
        accurate: a built model, or in a spec its description.
        robust: likewise.
        accurate_taps: names of two modules of the accurate model, lower one first; the authors take the outputs of the
            first and of the second residual stage.
        robust_taps: likewise of the robust model.
        alpha_min: least weight of the robust model in eval mode, in [0, 1].
        alpha_max: largest one.
        widths: channels of the mixing network's stages, small enough for a CPU; the authors' are 64 to 1024.
        blocks: residual blocks of each stage.
        momentum: of the running statistics of the network's output.
        logit: factor and shift of the standardised score in eval mode.
        training_logit: likewise in training.
        accurate_scale: factor on the accurate model's logits.
        robust_scale: factor on the robust model's logits.
        input_shape: (C, H, W) of the images; None reads it from the bases' specs.

    Raises:
        HauberkError: if a module is not there, or its output is neither flat nor a map of features.
    """
    specs = registry.spec(accurate), registry.spec(robust)
    shape = input_shape or specs[0].get("input_shape") or specs[1].get("input_shape")
    if shape is None:
        raise HauberkError("the input shape of the bases is not known", "give input_shape, for example (3, 32, 32)")
    taps = _pair("accurate_taps", accurate_taps), _pair("robust_taps", robust_taps)
    features = [_features(base, names, shape) for base, names in zip((accurate, robust), taps, strict=True)]
    first, second = (concatenated(depth).shape[1] for depth in zip(*features, strict=True))
    network = MixingNetwork(first, second, widths, blocks, momentum).to(features[0][0])
    model = AdaptiveMixedClassifier(
        accurate, robust, network, *taps, alpha_min=alpha_min, alpha_max=alpha_max, logit=_pair("logit", logit),
        training_logit=_pair("training_logit", training_logit),
        accurate_scale=accurate_scale, robust_scale=robust_scale,
    )  # fmt: skip
    model.spec = {
        "name": "adaptive_mixed", "accurate": specs[0], "robust": specs[1], "accurate_taps": list(accurate_taps),
        "robust_taps": list(robust_taps), "alpha_min": alpha_min, "alpha_max": alpha_max, "widths": list(widths),
        "blocks": blocks, "momentum": momentum, "logit": list(logit), "training_logit": list(training_logit),
        "accurate_scale": accurate_scale, "robust_scale": robust_scale, "input_shape": list(shape),
    }  # fmt: skip
    return model


def _pair(name: str, values: Sequence[T]) -> tuple[T, T]:
    if isinstance(values, str) or len(values) != 2:
        raise HauberkError(f"expected two {name}, got {values!r}", "for example accurate_taps: [layer1, layer2]")
    return values[0], values[1]


@torch.no_grad()
def _features(base: nn.Module, taps: Sequence[str], shape: Sequence[int]) -> tuple[Tensor, ...]:
    """What the modules give for one blank image."""
    first = next(base.parameters(), torch.zeros(1))  # on the CPU: where a model without parameters is
    with evaluating(base):
        return activations_of(base, taps, torch.zeros(1, *shape, dtype=first.dtype, device=first.device))[1]


@dataclass(frozen=True, config=CONFIG)
class AlphaDown(AttackLoss):
    r"""Fool the mix, and push the weight of its robust model down.

    .. math:: (1 - w)\,\ell + w\,\mathrm{softplus}(-t)

    with a loss :math:`\ell` of the logits and the mixing network's t; the second term is the binary cross-entropy of
    :math:`\sigma(t)` with label 1 (Bai et al. 2024, Section 4.2, adaptive attack; the form and the weight 0.5 are in
    the authors' code).  It grows without bound as t falls, so a point of high loss need not be misclassified: run it
    beside attacks without it, as ``AutoAttack(..., losses=(AlphaDown(),))`` does.  Here its targeted search is adaptive
    too; in the authors' code only the untargeted search is.

    Args:
        weight: w in [0, 1]; how much alpha counts.
        base: ``ce``, ``margin`` or ``dlr``; in a targeted search its targeted form.
    """

    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    base: Literal["ce", "margin", "dlr"] = "ce"

    def __call__(self, outputs: Mapping[str, Tensor], labels: Tensor, targets: Tensor | None) -> Tensor:
        """Value of each row, (B,), from ``logits`` and ``alpha_logit``; targeted, that class has to win.

        Raises:
            HauberkError: if the model has no mixing network.
        """
        if "alpha_logit" not in outputs:
            raise HauberkError(
                f"the loss needs the output alpha_logit, but the model has {', '.join(outputs)}",
                "attack a model of kind adaptive_mixed",
            )
        logits = outputs["logits"]
        if targets is None:
            fooled = attack_loss(self.base, logits, labels)
        else:
            fooled = targeted_loss(self.base, logits, labels, targets)
        return (1.0 - self.weight) * fooled + self.weight * functional.softplus(-outputs["alpha_logit"])
