"""Adversarial training on images that are attacked once in a number of epochs, in one set with the clean ones."""

from __future__ import annotations

import copy
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.randomness import stream
from hauberk.threats import CONFIG

MEMORY = "epochwise_adversarial"  # the place in a context's state: the round, its model, and its attacked images


@dataclass(frozen=True, config=CONFIG)
class EpochwiseAdversarial(Objective):
    r"""Cross-entropy on :math:`D_{adv} \cup D`, where the attacked images are made anew every N epochs.

    At the start of a round a subset D' is drawn, and its images are attacked with the weights
    :math:`\theta^{(t)}` of that moment; the N epochs of the round learn from these images and from the clean ones:

    .. math:: \frac{1}{|D|\,(1 + s\,r)} \Bigl( \sum_{D'} \bigl(\ell(x_i + \delta_i^{(t)}) + r\,\ell(x_i)\bigr)
              + \sum_{D \setminus D'} \ell(x_i) \Bigr), \qquad r = \frac{c}{1 - c}

    with s the share of D' and c that of the clean images beside the attacked ones: with c = 1/2 this is the union of
    the two sets, with c = 0 attacked images take the place of theirs.  Madry et al. 2018 attack at every step instead
    (``pgd_adversarial``): here the model has been trained further since the attack, so that the attack is weaker.  An
    image is attacked at its first visit in the round, in its augmented form, with a copy of the model from the start of
    the round, which gives the same result as an attack at the start of the round.

    With N > 1 the attacked images are kept, as float32, in memory and in the checkpoint.

    Args:
        attack: the inner maximisation.
        every: N, epochs of a round; the attack costs an N-th of what it costs at every step.
        share: s, the expected share of D' in the data; which images belong to it is drawn anew in each round.
        clean_fraction: c.
    """

    attack: Attack
    every: Annotated[int, Field(ge=1)] = 1
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    clean_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce_adversarial``, ``adversarial_accuracy`` and ``ce_clean``, of rows there."""
        nth = context.epoch // self.every
        known = context.state.get(MEMORY)
        if known is None or known["round"] != nth:
            start = {name: value.detach().clone() for name, value in model.state_dict().items()}
            context.state[MEMORY] = {"round": nth, "model": start, "places": {}, "points": []}
        member = torch.tensor([self._drawn(nth, i) for i in batch.ids.tolist()], device=batch.labels.device)
        ratio = self.clean_fraction / (1.0 - self.clean_fraction)
        beside = (~member).to(batch.images) + ratio * member.to(batch.images)  # weights of the clean images
        attacked, clean = member.nonzero().flatten(), beside.nonzero().flatten()
        points = self._points(model, batch, context, member)[attacked]
        logits: Tensor = model(torch.cat([points, batch.images[clean]]))
        labels = torch.cat([batch.labels[attacked], batch.labels[clean]])
        losses = functional.cross_entropy(logits, labels, reduction="none")
        worst, plain = losses[: len(attacked)], losses[len(attacked) :]
        total = worst.sum() + (beside[clean] * plain).sum()
        terms = {
            "ce_adversarial": worst.detach().sum() / max(1, len(worst)),
            "ce_clean": plain.detach().sum() / max(1, len(plain)),
            "adversarial_accuracy": accuracy(logits[: len(worst)], labels[: len(worst)]).nan_to_num(),
        }
        return Loss(total / (len(batch) * (1.0 + self.share * ratio)), terms)

    def _drawn(self, nth: int, sample: int) -> bool:
        """Whether a sample belongs to D' in a round."""
        return self.share == 1.0 or bool(stream(nth, sample, MEMORY).random() < self.share)

    def _points(self, model: nn.Module, batch: Batch, context: Context, member: Tensor) -> Tensor:
        """The attacked images of the round in the rows of D', clean ones elsewhere, (B, C, H, W)."""
        memory: dict[str, Any] = context.state[MEMORY]
        places: dict[int, list[int]] = memory["places"]
        found = [places.get(i) for i in batch.ids.tolist()]
        points = batch.images.clone()
        for row, place in enumerate(found):
            if place is not None:
                points[row] = memory["points"][place[0]][place[1]]
        wanted = member & torch.tensor([place is None for place in found], device=member.device)
        rows = wanted.nonzero().flatten()
        if len(rows):
            first = copy.deepcopy(model)
            first.load_state_dict(memory["model"])
            randomness = context.randomness(len(batch)).select(rows)
            points[rows] = self.attack.perturb(first, batch.images[rows], batch.labels[rows], randomness)
        if self.every > 1:
            new = context.whole(wanted.long()).nonzero().flatten()
            for nth, sample in enumerate(context.whole(batch.ids)[new].tolist()):
                places[sample] = [len(memory["points"]), nth]
            memory["points"].append(context.whole(points)[new])
        return points
