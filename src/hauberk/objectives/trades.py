"""TRADES: clean accuracy plus beta times how far the output moves under attack (Zhang et al. 2019)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, Smoothing, accuracy
from hauberk.threats import CONFIG

Divergence = Literal["kl", "ce"]


def divergence(name: Divergence, clean: Tensor, attacked: Tensor) -> Tensor:
    r"""How far the attacked output p' is from the clean one p, one value for each row.

    ``kl`` is :math:`\sum_k p_k (\log p_k - \log p'_k)`, ``ce`` is :math:`-\sum_k p_k \log p'_k = \mathrm{KL} + H(p)`.
    Both have the same gradient in the attacked image, as the entropy H(p) does not depend on it; in the parameters they
    differ by the gradient of H(p), which for ``ce`` also makes clean predictions more certain.

    Args:
        name: ``kl`` or ``ce``.
        clean: logits at the clean images, (B, K).
        attacked: logits at the attacked images, (B, K).

    Returns:
        shape (B,), in nats.
    """
    log_clean, log_attacked = clean.log_softmax(1), attacked.log_softmax(1)
    if name == "kl":
        return (log_clean.exp() * (log_clean - log_attacked)).sum(1)
    return -(log_clean.exp() * log_attacked).sum(1)


@dataclass(frozen=True, config=CONFIG)
class TRADES(Objective):
    r"""Clean cross-entropy plus beta times the divergence of the attacked output from the clean one.

    .. math:: \mathrm{CE}(f(x), y) + \beta\, D\big(p(x), p(x')\big)

    with the logits :math:`f(x)`, the probabilities :math:`p(x) = \mathrm{softmax}(f(x))` and the attacked image
    :math:`x'`, which maximises D.  Zhang et al. 2019, Eq. 3 and 5.
    Exactly two forward passes are made in train mode, one on clean and one on attacked images, so batch norm's running
    statistics see each image twice.  The attack raises the same divergence in eval mode, on frozen parameters, from a
    random start in the ball (at the image itself the divergence has a vanishing gradient).

    Args:
        attack: the inner maximisation, with ``loss="kl"``.
        beta: weight of the divergence; more robust and less accurate as it grows (the authors use 1 to 10).
        divergence: ``kl`` (the paper), or ``ce``, which adds the entropy of the clean output.
        detach_target: let no gradient flow through the clean output inside the divergence; then kl and ce train alike.
        label_smoothing: weight of the uniform distribution in the clean term's target.
    """

    attack: Attack
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 6.0
    divergence: Divergence = "kl"
    detach_target: bool = False
    label_smoothing: Smoothing = 0.0

    def __post_init__(self) -> None:
        if self.attack.loss != "kl":
            raise ValueError(
                f'TRADES attacks the KL divergence: expected the attack loss="kl", got "{self.attack.loss}"'
            )

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce``, ``divergence``, ``accuracy`` and ``adversarial_accuracy``."""
        points = context.attacked(self.attack, model, batch)
        clean, attacked = context.answers(model, batch.images), context.answers(model, points)
        natural = functional.cross_entropy(clean, batch.labels, label_smoothing=self.label_smoothing)
        moved = divergence(self.divergence, clean.detach() if self.detach_target else clean, attacked).mean()
        terms = {
            "ce": natural.detach(),
            "divergence": moved.detach(),
            "accuracy": accuracy(clean, batch.labels),
            "adversarial_accuracy": accuracy(attacked, batch.labels),
        }
        return Loss(natural + self.beta * moved, terms)
