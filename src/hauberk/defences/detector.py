"""A classifier with a detector: a head on an intermediate activation rejects attacks (Metzen et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks.losses import AttackLoss, attack_loss, targeted_loss
from hauberk.batch import Batch
from hauberk.capabilities import Decides, NamedOutputs
from hauberk.classifier import ABSTAIN, TILE, Traits, check_eval, classes, evaluating
from hauberk.defences.activations import activations_of
from hauberk.errors import HauberkError
from hauberk.randomness import Key
from hauberk.specs import Width
from hauberk.threats import CONFIG


class DetectedClassifier(nn.Module, Decides, NamedOutputs):
    """A base classifier and a head that reads one of its activations; what the head takes for an attack is rejected.

    ``forward`` gives the base's logits, so an attack whose loss reads only logits does not take the detector into
    account. ``decide`` is the classifier itself.

    Args:
        base: the classifier that is guarded; the head is trained on it as it is (see ``hauberk.objectives.detector``).
        head: from the activation to one logit of "attacked", (B, ...) to (B, 1).
        layer: name of the base's module whose output the head reads, as in ``base.named_modules()``.
        threshold: an image whose detector logit exceeds it is rejected.
    """

    traits = Traits()

    def __init__(self, base: nn.Module, head: nn.Module, layer: str, threshold: float) -> None:
        super().__init__()
        self.base, self.head, self.layer, self.threshold = base, head, layer, threshold
        self.spec: dict[str, Any] = {}

    @property
    def adaptive_losses(self) -> tuple[AttackLoss, ...]:
        """The losses that an adaptive attack adds to AutoAttack."""
        return (DetectorJoint(),)

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the base's logits (B, K), without the detector."""
        logits: Tensor = self.base(images)
        return logits

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """``logits`` (B, K) of the base, ``detector`` (B,), the logit of "attacked", and its ``threshold`` (B,)."""
        logits, (activation,) = activations_of(self.base, [self.layer], images)
        score = self.head(activation).squeeze(1)
        return {"logits": logits, "detector": score, "threshold": torch.full_like(score, self.threshold)}

    def decide(self, images: Tensor, key: Key) -> Tensor:  # noqa: ARG002 - nothing is random
        """The base's class, (B,), int64; -1 where the image is rejected or the detector's score is NaN."""
        told = self.outputs(images)
        return torch.where(told["detector"] <= told["threshold"], classes(told["logits"]), ABSTAIN)


def detected(
    base: nn.Module,
    layer: str,
    threshold: float = 0.0,
    width: Width = 32,
    input_shape: Sequence[Width] | None = None,
) -> DetectedClassifier:
    """Build a classifier with an untrained detector head on one of its activations.

    The head of an activation of channels is two 3x3 convolutions with ReLU, the mean over places and a linear layer; of
    a flat one, a hidden layer of ReLU.

    Args:
        base: a built model, or in a spec its description.
        layer: name of the base's module whose output the head reads.
        threshold: an image whose detector logit exceeds it is rejected; 0 is even odds.  Set it by ``calibrate``.
        width: channels of the head.
        input_shape: (C, H, W) of the images; None reads it from the base's spec.
    """
    spec = registry.spec(base)
    shape = spec.get("input_shape") if input_shape is None else input_shape
    if shape is None:
        raise HauberkError(f"{spec['name']} does not say its input shape", "give input_shape, for example (3, 32, 32)")
    with torch.no_grad(), evaluating(base):
        first = next(base.parameters(), torch.zeros(1))  # on the CPU: where a model without parameters is
        blank = torch.zeros(1, *shape, dtype=first.dtype, device=first.device)
        _, (activation,) = activations_of(base, [layer], blank)
    model = DetectedClassifier(base, _head(activation, width), layer, threshold)
    model.spec = {
        "name": "detected", "base": spec, "layer": layer, "threshold": threshold, "width": width,
        "input_shape": list(shape),
    }  # fmt: skip
    return model


def _head(activation: Tensor, width: int) -> nn.Module:
    channels = activation.shape[1]
    if activation.dim() == 2:
        layers: list[nn.Module] = [nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, 1)]
    elif activation.dim() == 4:
        layers = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1)]
    else:
        raise HauberkError(
            f"expected an activation of shape (B, F) or (B, C, H, W), got {tuple(activation.shape)}",
            "choose another layer",
        )
    return nn.Sequential(*layers).to(activation)


@torch.no_grad()
def calibrate(model: DetectedClassifier, clean: Batch, false_positives: float = 0.05) -> float:
    r"""Set the threshold so that at most a given share of clean images is rejected, and return it.

    With :math:`k = \lfloor n p \rfloor` it is the (k+1)-th largest of the n scores, so without ties k of them exceed
    it, and an unseen image of the same kind does so with probability (k+1)/(n+1).

    Args:
        model: in eval mode; its threshold and its spec are set.
        clean: validation images, never those that results are reported on.
        false_positives: p in [0, 1).
    """
    if not 0.0 <= false_positives < 1.0:
        raise HauberkError(
            f"expected a share of false positives in [0, 1), got {false_positives}",
            "0.05 rejects one clean image in 20",
        )
    check_eval(model)
    if len(clean) == 0:
        raise HauberkError("there are no images to calibrate on", "give the validation split")
    scores = torch.cat([model.outputs(tile.images)["detector"][:used] for tile, used in clean.tiles(TILE)])
    allowed = int(false_positives * len(clean))
    model.threshold = float(scores.sort(descending=True).values[allowed])
    model.spec = model.spec | {"threshold": model.threshold}
    return model.threshold


@dataclass(frozen=True, config=CONFIG)
class DetectorJoint(AttackLoss):
    r"""Fool the classifier and stay below the detector's threshold at once.

    .. math::
        \ell = \min(a, 0) + \min(b, 0) + \max(\min(a, b), 0), \quad
        a = (1 - w)(\max_{j \ne y} z_j - z_y), \quad b = w\,(\theta - d)

    with detector logit d and threshold :math:`\theta`.  Each goal counts until it is reached and then leaves the
    gradient to the other; beyond, the narrower of the two grows.  So for every w the loss is positive exactly where the
    image is misclassified and not rejected (up to ties): the point of highest loss is a success whenever a success was
    seen.

    Metzen et al. 2017, Section 3.3 instead step along the signs of both gradients, weighted by :math:`1 - \sigma` and
    :math:`\sigma`.  A sum (of signs or of losses) is unbounded in either term, so its best point may be a confident
    misclassification that is rejected, or a right answer that is not.

    Args:
        weight: w in (0, 1); how much the detector's logit counts beside the classifier's margin.
    """

    weight: Annotated[float, Field(gt=0, lt=1)] = 0.5

    def __call__(self, outputs: Mapping[str, Tensor], labels: Tensor, targets: Tensor | None) -> Tensor:
        """Value of each row, (B,), from ``logits``, ``detector`` and ``threshold``; targeted, the target has to win.

        Raises:
            HauberkError: if the model has no detector.
        """
        if not {"detector", "threshold"} <= outputs.keys():
            raise HauberkError(
                f"the joint loss needs the outputs of a detector, but the model has {', '.join(outputs)}",
                "attack a model of kind detected",
            )
        logits = outputs["logits"]
        if targets is None:
            fooled = attack_loss("margin", logits, labels)
        else:
            fooled = targeted_loss("margin", logits, labels, targets)
        a, b = (1.0 - self.weight) * fooled, self.weight * (outputs["threshold"] - outputs["detector"])
        return a.clamp_max(0.0) + b.clamp_max(0.0) + torch.minimum(a, b).clamp_min(0.0)
