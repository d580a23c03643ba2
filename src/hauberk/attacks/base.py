"""The attack contract: a subclass writes the search; the base class projects, re-classifies and decides success.

Every model call goes through a ``Query``, which packs the images that are still undecided into full tiles, counts
passes and keeps, for every image, the evaluated points of highest loss, smallest logit margin, smallest probability
margin and smallest change of class, at no extra forward pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass as plain_dataclass
from dataclasses import fields
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.gradients import attackable, behind_a_fence, draws
from hauberk.attacks.judging import Asked, answered, heard
from hauberk.attacks.losses import AttackLoss, LossName
from hauberk.attacks.query import ROWS, Decided, Query
from hauberk.attacks.tape import current
from hauberk.batch import Batch, keep_freed_memory
from hauberk.boundary import check_batch
from hauberk.capabilities import Poll, Polled
from hauberk.classifier import (
    ABSTAIN,
    TILE,
    Decides,
    affine_norms,
    channels_last,
    check_classifier,
    check_eval,
    classes,
    decide,
    evaluating,
    frozen,
)
from hauberk.randomness import Key, PerSample, Randomness
from hauberk.threats import CONFIG, Norm, Threat

LOCKSTEP = 512  # images searched together, as far as memory allows
PIXELS = 2**25


@plain_dataclass(frozen=True)
class AttackResult:
    r"""What an attack found for each of B images.

    Args:
        adversarial: the returned point, (B, C, H, W): the nearest misclassified point of the threat, else the best one.
        success: whether a misclassified point of the threat was found, the image itself included; (B,) bool.
        clean_prediction: decision at the image, (B,).
        prediction: decision at the returned point, (B,).
        distance: of the returned point from the image in the threat's norm, (B,) float64, pixel units.
        loss: the highest loss seen, (B,), and where, ``best_loss_point``.
        logit_margin: the smallest :math:`z_y - \max_{j\ne y} z_j` seen, (B,), and where, ``logit_margin_point``.
        probability_margin: the smallest :math:`p_y - \max_{j\ne y} p_j` seen, (B,), and where.
        nearest: distance of the nearest misclassified point of the box that was seen, whatever the budget; (B,)
            float64, 0 where the image itself is misclassified, infinite where none was seen; and where.
        clean_probabilities: softmax at the image, (B, K).
        probabilities: softmax at the returned point, (B, K).
        clean_draws: of a random model, the decisions of n fresh draws at the image, (B, n); n is 0 for any other.
        draws: the same at the returned point; ``prediction`` is then the class with most of them.
        forwards: forward passes spent on each image, (B,).
        backwards: backward passes spent on each image, (B,).
        zero_gradients: how many of its gradients were zero in every pixel, (B,).
        stopped: why the search ended: ``misclassified`` (before any search), ``found`` (decided on the way) or
            ``steps`` (budget used).
    """

    adversarial: Tensor
    success: Tensor
    clean_prediction: Tensor
    prediction: Tensor
    distance: Tensor
    loss: Tensor
    best_loss_point: Tensor
    logit_margin: Tensor
    logit_margin_point: Tensor
    probability_margin: Tensor
    probability_margin_point: Tensor
    nearest: Tensor
    nearest_point: Tensor
    clean_probabilities: Tensor
    probabilities: Tensor
    clean_draws: Tensor
    draws: Tensor
    forwards: Tensor
    backwards: Tensor
    zero_gradients: Tensor
    stopped: tuple[str, ...]

    @staticmethod
    def concatenate(results: list[AttackResult]) -> AttackResult:
        """Join the results of consecutive groups of images."""
        columns: dict[str, Any] = {}
        for f in fields(AttackResult):
            values = [getattr(r, f.name) for r in results]
            columns[f.name] = sum(values, ()) if f.name == "stopped" else torch.cat(values)
        return AttackResult(**columns)

    def head(self, rows: int) -> AttackResult:
        """The first rows."""
        columns: dict[str, Any] = {f.name: getattr(self, f.name)[:rows] for f in fields(AttackResult)}
        return AttackResult(**columns)


@dataclass(frozen=True, config=CONFIG)
class Attack(ABC):
    """Looks for a misclassified point inside a threat; its result is an upper bound on robustness.

    Args:
        threat: norm ball in the pixel box.
        loss: ``ce``, ``margin``, ``dlr``, ``kl``, or a registered loss that reads the model's named outputs.
        early_stop: leave an image alone once a misclassified point of the threat is found.  Verdicts are the same
            either way; distances and margins of broken images are then those of the first point found.
        eot: model calls averaged for one loss and gradient (expectation over transformation); None takes 1 for a
            deterministic model and 20 for one that is random.
    """

    threat: Threat
    loss: LossName | AttackLoss = "ce"
    early_stop: bool = True
    eot: Annotated[int, Field(ge=1)] | None = None

    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")
    revision: ClassVar[int] = 1  # raised when its answers change: records of the older code are then not its own
    projects: ClassVar[bool] = True  # whether training gets the point projected onto the ball

    def __post_init__(self) -> None:
        if self.threat.norm not in self.norms:
            raise ValueError(f"{type(self).__name__} works in {', '.join(self.norms)}, not in {self.threat.norm}")

    @abstractmethod
    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Maximise the query's loss inside the threat, or look for the nearest misclassified point.

        Args:
            query: the model, the images and the labels; call ``query.gradient`` or ``query.value`` on points.  Rows
                that are decided are no longer evaluated: their values and gradients are zero.
            randomness: one draw for each row.

        Returns:
            the last iterate, (B, C, H, W), which training uses; evaluation uses the best points of the query.
        """

    def perturb(
        self, model: nn.Module, images: Tensor, labels: Tensor, randomness: Randomness,
        budget: float | Tensor | None = None,
    ) -> Tensor:
        """Training's inner maximisation on the batch as it is.

        Parameters are frozen and the model is in eval mode inside; both are restored after.

        Args:
            model: the classifier that is trained.
            images: (B, C, H, W).
            labels: (B,).
            randomness: one draw for each row.
            budget: one for each image, (B,), or one for all, in the place of the threat's; pixel units.

        Returns:
            the search's last iterate, projected, detached, (B, C, H, W).
        """

        def attack() -> Tensor:
            query = Query(model, images, labels, self.threat, self.loss, budget=budget)
            with frozen(model), evaluating(model), affine_norms(model), attackable(model):
                points = self.search(query, randomness).detach()
            return query.project(points) if self.projects else points

        tape = current()
        return attack() if tape is None else tape.pass_through(attack, randomness)

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = TILE) -> AttackResult:
        """Attack every image; the result does not depend on batch size or order.

        Exactly so where the kernels treat all places of a tile alike, which some narrow matrix products do not in the
        last bits; an evaluation by units sorts the images first, so that each has the same neighbours every time.

        Args:
            model: a classifier in eval mode.
            batch: images in [0, 1], labels, ids.
            seed: with each sample's id, the source of all randomness.
            tile: rows of every model call; images that are still undecided fill the tiles.

        Raises:
            HauberkError: if model or batch break the classifier contract.
        """
        check_eval(model)
        check_batch(batch)
        rows = max(tile, min(LOCKSTEP, PIXELS // batch.images[0].numel()))
        with frozen(model), channels_last(model), attackable(model), behind_a_fence(model, seed):
            check_classifier(model, batch)
            groups = [batch.select(slice(start, start + rows)) for start in range(0, len(batch), rows)]
            return AttackResult.concatenate([self._attack(model, group, seed, tile) for group in groups])

    def _attack(self, model: nn.Module, images: Batch, seed: int, tile: int) -> AttackResult:
        # vector instructions round the last few values of a tensor in another way, so those belong to rows of padding
        batch, used = next(images.tiles(-(-len(images) // ROWS) * ROWS))
        query = self.query(model, batch, tile, seed)
        query.active[used:] = False
        clean_prediction = decide(model, batch, seed, tile) if isinstance(model, Decides) else None
        with suppress(Decided):
            query.value(batch.images)  # the image itself is a point of the threat
            self.search(query, PerSample(seed, batch.ids, "attack", batch.images.device))
        return self._judge(model, batch, query, clean_prediction, seed, tile).head(used)

    def query(self, model: nn.Module, batch: Batch, tile: int = TILE, seed: int = 0) -> Query:
        """The model as this attack's search calls it; the query keeps the best points."""
        keep_freed_memory()
        drop = self.early_stop and not isinstance(model, Decides)
        usual = draws(model, batch.images[:1])
        eot = usual if self.eot is None else self.eot
        key = Key(seed, 0, tuple(batch.ids.tolist()), "search")
        query = Query(
            model, batch.images, batch.labels, self.threat, self.loss, tile=tile, track=True, drop=drop and eot == 1,
            eot=eot, key=key, random=usual > 1,
        )  # fmt: skip
        if isinstance(model, Polled) and model.poll.rule == "mean" and not isinstance(self.loss, AttackLoss):
            query.mean = "logits"  # the predictor that is judged
        return query

    def asked(self, eot: int, random: bool) -> Asked:  # noqa: ARG002 - of a subclass
        """The decision rule for a random model that has none of its own, and how many draws are recorded."""
        return Poll("vote", eot), eot

    def _judge(
        self, model: nn.Module, batch: Batch, query: Query, decided: Tensor | None, seed: int, tile: int
    ) -> AttackResult:
        """Project the candidate points again, classify them again, and believe only that."""
        adversarial = self._inside(self._candidates(model, query), batch.images)
        clean_logits, asked = query.clean_logits, self.asked(query.eot, query.random)
        clean_draws, polled = heard(model, batch, asked, tile, seed)
        single = classes(clean_logits) if polled is None else polled
        clean_prediction = single if decided is None else decided
        clean_wrong = clean_prediction != batch.labels
        adversarial = torch.where(clean_wrong[:, None, None, None], batch.images, adversarial)
        check = Batch(adversarial, batch.labels, batch.ids)
        logits, fresh, prediction = answered(model, check, asked, tile, seed)
        prediction = torch.where(clean_wrong, clean_prediction, prediction)
        distance = self.threat.distance(adversarial, batch.images)
        changed = self.succeeded(model, prediction, batch.labels) & (distance <= self.threat.eps)
        success = clean_wrong | changed
        nearest = self._nearest(model, batch, query, clean_wrong, seed, tile)
        reasons = zip(clean_wrong.tolist(), (~query.active).tolist(), strict=True)
        return AttackResult(
            adversarial=adversarial,
            success=success,
            clean_prediction=clean_prediction,
            prediction=prediction,
            distance=distance,
            loss=-query.best["loss"],
            best_loss_point=query.points["loss"],
            logit_margin=query.best["logit_margin"],
            logit_margin_point=query.points["logit_margin"],
            probability_margin=query.best["probability_margin"],
            probability_margin_point=query.points["probability_margin"],
            nearest=torch.where(success, torch.minimum(nearest, distance), nearest),
            nearest_point=query.points["nearest"],
            clean_probabilities=clean_logits.softmax(1),
            probabilities=logits.softmax(1),
            clean_draws=clean_draws,
            draws=fresh,
            forwards=query.forwards,
            backwards=query.backwards,
            zero_gradients=query.zero_gradients,
            stopped=tuple("misclassified" if wrong else "found" if done else "steps" for wrong, done in reasons),
        )

    def _candidates(self, model: nn.Module, query: Query) -> Tensor:
        """The point of each image that is judged."""
        if isinstance(model, Decides):  # a forward pass only stands in for the decision: its first error may be none
            return query.points["loss" if isinstance(self.loss, AttackLoss) else "logit_margin"]
        return torch.where(query.misclassified[:, None, None, None], query.points["nearest"], query.points["loss"])

    def _inside(self, points: Tensor, images: Tensor) -> Tensor:
        """The points within the budget to the last bit: float32 may exceed it in the seventh digit."""
        inside = self.threat.project(points, images)
        over = self.threat.distance(inside, images) > self.threat.eps
        if not bool(over.any()):
            return inside
        shrunk = self.threat.project(points, images, max(0.0, self.threat.eps * (1.0 - 1e-5) - 1e-7))
        return torch.where(over[:, None, None, None], shrunk, inside)

    def _nearest(
        self, model: nn.Module, batch: Batch, query: Query, clean_wrong: Tensor, seed: int, tile: int
    ) -> Tensor:
        """Distance of the nearest misclassified point, classified again where it lies beyond the budget."""
        nearest = self.threat.distance(query.points["nearest"], batch.images)
        nearest = torch.where(query.best["nearest"].isfinite(), nearest, torch.inf)
        nearest = torch.where(clean_wrong, 0.0, nearest)
        beyond = (nearest > self.threat.eps) & nearest.isfinite()
        if bool(beyond.any()):
            rows = beyond.nonzero().flatten()
            there = Batch(query.points["nearest"][rows], batch.labels[rows], batch.ids[rows])
            wrong = self.succeeded(model, decide(model, there, seed, tile), there.labels)
            nearest[rows] = torch.where(wrong, nearest[rows], torch.inf)
        # within the budget the verdict on the returned point decides
        return torch.where((nearest <= self.threat.eps) & ~clean_wrong, torch.inf, nearest)

    @staticmethod
    def succeeded(model: nn.Module, prediction: Tensor, labels: Tensor) -> Tensor:
        """Whether the decision is wrong.

        NaN logits count as wrong.  A vote that is too close to call does not count as wrong, since it does not show
        that the class of the limit of the vote has changed.
        """
        wrong = prediction != labels
        return wrong & (prediction != ABSTAIN) if isinstance(model, Decides) else wrong
