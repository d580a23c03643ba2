"""Training the mixing network of an adaptive mix, whose bases are frozen (Bai et al. 2024)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.apgd import APGD
from hauberk.attacks.base import Attack
from hauberk.attacks.losses import target_classes
from hauberk.attacks.pgd import PGD
from hauberk.attacks.query import Query
from hauberk.batch import Batch
from hauberk.defences.adaptive_mixed import AdaptiveMixedClassifier, AlphaDown, MixView
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.randomness import Randomness, Shared
from hauberk.threats import CONFIG, Threat

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
STEPS = {"A": 20, "B": 20, "C": 75}


@dataclass(frozen=True, config=CONFIG)
class RankedAPGD(APGD):
    """APGD towards one class, for training; it returns the point of highest loss, misclassified or not.

    Args:
        threat: norm ball in the pixel box.
        rank: aims at the wrong class of this rank by its probability at the clean image, from 0.
    """

    rank: Annotated[int, Field(ge=0)] = 0

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """One run towards the class; the best point is returned."""
        query.targets = target_classes(query.clean_logits, query.labels, self.rank)
        points = self._run(query, randomness)
        query.targets = None
        return points


@dataclass(frozen=True, config=CONFIG)
class AdaptiveSmoothing(Objective):
    r"""Distinguish clean from attacked images, with more weight where the mix is wrong: Eq. 8, averaged over images.

    .. math:: c_{CE}\,\mathrm{CE}(m(x), y) + c_{BCE}\,\mathrm{BCE}(t(x), \tilde\alpha)
              + c_{prod}\,\mathrm{CE}(m(x), y)\,\mathrm{BCE}(t(x), \tilde\alpha)

    with the mix's log-probabilities m, the mixing network's logit t and the pseudo-label :math:`\tilde\alpha`, 0 for a
    clean image (use the accurate model) and 1 for an attacked one.  Clean images and their attacked versions go through
    the network in one forward pass, so that its batch norms, that of the output among them, see the mixture.  Only the
    mixing network has gradients.

    The attacks are those of Section 4.2.  ``A``: PGD that gets no gradient through alpha; ``B``: PGD; ``C``: APGD,
    untargeted or aimed at one of the likeliest wrong classes, each as often.  They see alpha in its full range, as it
    is trained, and maximise ``AlphaDown``.  PGD gives its last iterate.  APGD gives its point of highest loss, also for
    images that it cannot break; the authors' code gives its random start there, so that robust images enter training
    with random noise instead of an attack.

    Budget, steps, weight of the alpha term and target are drawn anew at every step (Section 5.2; the distributions are
    in the authors' code, which draws the budget and the weight for each image).  Here the budget is drawn for each
    image, the others for each of a few groups into which the batch is cut.

    Train with AdamW, a learning rate of about 1e-4, EMA and few epochs.

    Args:
        threat: norm and full budget of the attacks.
        setting: ``A``, ``B`` or ``C``.
        steps: mean number of steps n; a group's is chi-square with n degrees of freedom, rounded, at least 1.  None is
            20 for A and B, and 75 for C.
        targets: in C, the number of likeliest wrong classes that are aimed at; with 0 all attacks are untargeted.
        budgets: an image's budget is the threat's times a uniform number of this range.
        weights: a group's weight of the alpha term is uniform in this range.
        groups: groups of a batch.
        ce: :math:`c_{CE}`.
        bce: :math:`c_{BCE}`.
        product: :math:`c_{prod}`.
    """

    threat: Threat
    setting: Literal["A", "B", "C"] = "C"
    steps: Annotated[int, Field(ge=1)] | None = None
    targets: Annotated[int, Field(ge=0)] = 9
    budgets: tuple[Amount, Amount] = (0.4, 1.1)
    weights: tuple[Amount, Amount] = (0.0, 0.4)
    groups: Annotated[int, Field(ge=1)] = 4
    ce: Amount = 0.0
    bce: Amount = 1.5
    product: Amount = 0.2

    def __post_init__(self) -> None:
        for name, (low, high) in (("budgets", self.budgets), ("weights", self.weights)):
            if low > high:
                raise ValueError(f"{name} is a range whose smaller number comes first, got ({low}, {high})")
        if self.weights[1] > 1.0:
            raise ValueError(f"a weight is at most 1, got {self.weights[1]}")
        if not (self.ce or self.bce or self.product):
            raise ValueError("one of ce, bce and product must be above 0")

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch.

        Its terms are ``ce``, ``bce``, ``accuracy`` and ``adversarial_accuracy`` (in training's range of alpha), and
        ``alpha_clean`` and ``alpha_attacked``, means over the batch.
        """
        if not isinstance(model, AdaptiveMixedClassifier):
            raise HauberkError(
                f"expected an adaptive mix, got {type(model).__name__}",
                "build it with name: adaptive_mixed, and train in float32",
            )
        rows = len(batch)
        attacked = self._attacked(model, batch, context)
        told = model.mix(torch.cat([batch.images, attacked]), as_trained=True)
        logits, alpha = told["logits"], told["alpha"].detach()
        ce = functional.cross_entropy(logits, batch.labels.repeat(2), reduction="none")
        pseudo = torch.cat([torch.zeros_like(alpha[:rows]), torch.ones_like(alpha[rows:])])
        bce = functional.binary_cross_entropy_with_logits(told["alpha_logit"], pseudo, reduction="none")
        terms = {
            "ce": ce.detach().mean(),
            "bce": bce.detach().mean(),
            "accuracy": accuracy(logits[:rows], batch.labels),
            "adversarial_accuracy": accuracy(logits[rows:], batch.labels),
            "alpha_clean": alpha[:rows].mean(),
            "alpha_attacked": alpha[rows:].mean(),
        }
        return Loss((self.ce * ce + self.bce * bce + self.product * ce * bce).mean(), terms)

    # --- the attacks of one step ----------------------------------------------------------------------------------

    def _attacked(self, model: AdaptiveMixedClassifier, batch: Batch, context: Context) -> Tensor:
        """The attacked images, (B, C, H, W); groups are cut from the whole batch, whatever the processes."""
        view = MixView(model, gray_box=self.setting == "A", as_trained=True)
        total = len(batch) if context.total is None else context.total
        classes, (least, most) = self._classes(model, batch), self.budgets
        attacked = []
        bounds = [total * group // self.groups for group in range(self.groups + 1)]
        draws = [(self._attack(context.generator, classes), _fork(context.generator)) for _ in range(self.groups)]
        for (start, end), (attack, generator) in zip(pairwise(bounds), draws, strict=True):
            first, last = (min(max(row - context.offset, 0), len(batch)) for row in (start, end))
            if first == last:
                continue
            own = batch.select(slice(first, last))
            randomness = Shared(generator, len(own), context.offset + first - start, end - start)
            budgets = self.threat.eps * (least + (most - least) * randomness.uniform().to(own.images))
            attacked.append(attack.perturb(view, own.images, own.labels, randomness, budgets))
        return torch.cat(attacked)

    def _attack(self, generator: torch.Generator, classes: int) -> Attack:
        """One attack of the setting with drawn steps, weight and target."""
        weight, rank = torch.rand(2, generator=generator, device=generator.device).tolist()
        degrees = STEPS[self.setting] if self.steps is None else self.steps
        normal = torch.randn(degrees, generator=generator, device=generator.device)
        steps = max(1, round(float(normal.square().sum())))
        least, most = self.weights
        loss = AlphaDown(weight=least + (most - least) * weight)
        if self.setting != "C":
            return PGD(self.threat, loss, steps=steps)
        aim = int(rank * (1 + min(self.targets, classes - 1))) - 1
        if aim < 0:
            return APGD(self.threat, loss, steps=steps)
        return RankedAPGD(self.threat, replace(loss, base="dlr"), steps=steps, rank=aim)

    @staticmethod
    @torch.no_grad()
    def _classes(model: AdaptiveMixedClassifier, batch: Batch) -> int:
        return int(model.robust(batch.images[:1]).shape[1])


def _fork(generator: torch.Generator) -> torch.Generator:
    """A generator of a group's own, so that a process without rows of it draws the same for the others."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(generator.device).manual_seed(seed)
