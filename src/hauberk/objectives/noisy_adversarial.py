"""Cross-entropy under noise and under attack at once, and of each single stream of a gated network."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.errors import HauberkError
from hauberk.layers.gate import ConvexGate
from hauberk.noises import Noise
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.threats import CONFIG

ALONE = 1e4  # a gate's logit beside zeros whose softmax is exactly 1 in float32


@dataclass(frozen=True, config=CONFIG)
class NoisyAdversarial(Objective):
    r""":math:`\ell(f(x + z), y) + \kappa\,\ell(f(x'), y) + \zeta\,\tfrac1B\sum_b \ell(f_b(x + z), y)`.

    z is noise and x' the attacked image.  :math:`\ell(v, y) = T\,\mathrm{CE}((v - u\,e_y) / T, y)` is scaled and
    lowered for networks of bounded slope, see ``standard``.  A random network draws its own noise anew at every step
    of the attack and for every term.  :math:`f_b` is the network whose gates pass only the stream b.

    The HyCAS paper weighs the losses of its streams by coefficients that are learned without a constraint, and so are
    smallest at zero; here they are fixed and equal.

    Args:
        noise: distribution of z; ``sigma: 0.25`` is short for Gaussian noise.
        attack: the inner maximisation; None with ``kappa`` 0.
        kappa: weight of the attacked images.
        stream_weight: :math:`\zeta`, weight of the losses of single streams.
        temperature: T, in units of the logits.
        offset: u, in units of the logits.

    Source: Dhar et al. 2026 (the losses of streams); the attacked term is that of the first author's later HySCAN.
    """

    noise: Noise
    attack: Attack | None = None
    kappa: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    stream_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    offset: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def __post_init__(self) -> None:
        if (self.kappa > 0) != (self.attack is not None):
            raise ValueError("give both kappa and attack, or neither: kappa is the weight of the attacked images")

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce``, ``accuracy`` and, where they are asked for, those of the other parts."""
        noisy = batch.images + self.noise.sample(context.randomness(len(batch)), *batch.images.shape[1:])
        logits: Tensor = model(noisy)
        loss = self._loss(logits, batch.labels)
        terms = {"ce": loss.detach(), "accuracy": accuracy(logits, batch.labels)}
        if self.attack is not None:
            points = self.attack.perturb(model, batch.images, batch.labels, context.randomness(len(batch)))
            attacked: Tensor = model(points)
            extra = self._loss(attacked, batch.labels)
            terms |= {"ce_adversarial": extra.detach(), "adversarial_accuracy": accuracy(attacked, batch.labels)}
            loss = loss + self.kappa * extra
        if self.stream_weight > 0:
            alone = torch.stack([self._loss(made, batch.labels) for made in streams_alone(model, noisy)])
            terms["ce_streams"] = alone.detach().mean()
            loss = loss + self.stream_weight * alone.mean()
        return Loss(loss, terms)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        lowered = logits - self.offset * functional.one_hot(labels, logits.shape[1]).to(logits)
        return self.temperature * functional.cross_entropy(lowered / self.temperature, labels)


def streams_alone(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The logits (B, K) of a gated network for each stream, when all its gates pass only that stream.

    Raises:
        HauberkError: if the model has no gate, or its gates have different numbers of streams.
    """
    gates = {name: m for name, m in model.named_modules() if isinstance(m, ConvexGate)}
    counts = {len(gate.streams) for gate in gates.values()}
    if len(counts) != 1:
        raise HauberkError(
            f"expected gates of one number of streams, got {sorted(counts) or 'no gate'}",
            "leave stream_weight out: it is for hycas_net",
        )
    found = []
    for stream in range(counts.pop()):
        logits = {f"{name}.logits": torch.zeros_like(gate.logits) for name, gate in gates.items()}
        for values in logits.values():
            values[stream] = ALONE
        found.append(functional_call(model, logits, (images,)))
    return found
