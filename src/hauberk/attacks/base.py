"""The attack contract: a subclass writes the search; the base class projects, re-classifies and decides success.

Every model call goes through a ``Query``, which counts passes and keeps, for every image, the evaluated points of
highest loss, smallest logit margin and smallest probability margin, at no extra forward pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass as plain_dataclass
from dataclasses import fields
from typing import Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.losses import LossName, attack_loss, targeted_loss
from hauberk.batch import Batch
from hauberk.classifier import (
    ABSTAIN,
    TILE,
    Decides,
    affine_norms,
    check_classifier,
    classes,
    decide,
    evaluating,
    frozen,
    margins,
)
from hauberk.errors import HauberkError
from hauberk.randomness import PerSample, Randomness
from hauberk.threats import CONFIG, Norm, Threat, norms


@plain_dataclass(frozen=True)
class AttackResult:
    r"""What an attack found for each of B images.

    Args:
        adversarial: the returned point, (B, C, H, W): a misclassified point if one was found, else the best one.
        success: whether some point of the threat, the image itself included, is misclassified; (B,) bool.
        clean_prediction: decision at the image, (B,).
        prediction: decision at the returned point, (B,).
        distance: of the returned point from the image in the threat's norm, (B,) float64, pixel units.
        loss: the highest loss seen, (B,), and where, ``best_loss_point``.
        logit_margin: the smallest :math:`z_y - \max_{j\ne y} z_j` seen, (B,), and where, ``logit_margin_point``.
        probability_margin: the smallest :math:`p_y - \max_{j\ne y} p_j` seen, (B,), and where.
        clean_probabilities: softmax at the image, (B, K).
        probabilities: softmax at the returned point, (B, K).
        forwards: forward passes spent on each image, (B,).
        backwards: backward passes spent on each image, (B,).
        stopped: why the search ended: ``misclassified`` (before any search) or ``steps`` (budget used).
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
    clean_probabilities: Tensor
    probabilities: Tensor
    forwards: Tensor
    backwards: Tensor
    stopped: tuple[str, ...]

    @staticmethod
    def concatenate(results: list[AttackResult]) -> AttackResult:
        """Join the results of consecutive tiles."""
        columns: dict[str, Any] = {}
        for f in fields(AttackResult):
            values = [getattr(r, f.name) for r in results]
            columns[f.name] = sum(values, ()) if f.name == "stopped" else torch.cat(values)
        return AttackResult(**columns)

    def head(self, rows: int) -> AttackResult:
        """The first rows."""
        columns: dict[str, Any] = {f.name: getattr(self, f.name)[:rows] for f in fields(AttackResult)}
        return AttackResult(**columns)


class Query:
    """The model as a search sees it: value and gradient of the loss at points, counted and remembered.

    Args:
        model: in eval mode, parameters frozen.
        images: clean images, (B, C, H, W).
        labels: (B,).
        attack: whose loss is maximised, inside whose threat.
        track: remember the best points (evaluation) or not (training, where only the last iterate is used).
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, attack: Attack, track: bool) -> None:
        self.model, self.images, self.labels = model, images, labels
        self._loss, self._threat, self.track = attack.loss, attack.threat, track
        self.targets: Tensor | None = None
        self.forwards = self.backwards = 0
        self._clean: Tensor | None = None
        if track:
            worst = torch.full((len(labels),), torch.inf, device=images.device)
            self.best = {name: worst.clone() for name in ("loss", "logit_margin", "probability_margin")}
            self.points = {name: images.clone() for name in self.best}
            self.misclassified = torch.zeros(len(labels), dtype=torch.bool, device=images.device)
            self.misclassified_point = images.clone()

    @property
    def clean_logits(self) -> Tensor:
        """Logits at the clean images, (B, K), computed once."""
        if self._clean is None:
            with torch.no_grad():
                self._clean = self.model(self.images)
            self.forwards += 1
        return self._clean

    def _value(self, logits: Tensor) -> Tensor:
        if self.targets is not None:
            return targeted_loss(self._loss, logits, self.targets)
        return attack_loss(self._loss, logits, self.labels, self.clean_logits if self._loss == "kl" else None)

    def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (B,) and its gradient with respect to the points (B, C, H, W)."""
        leaf = points.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self.model(leaf)
            value = self._value(logits)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        self.forwards += 1
        self.backwards += 1
        if self.track and not bool(gradient.isfinite().all()):
            raise HauberkError(
                "the model's gradient is NaN or infinite, so a gradient attack would be blind",
                "look for sqrt(0), log(0) or 0/0 in its forward pass; its robustness cannot be judged like this",
            )
        self._remember(points, logits.detach(), value.detach())
        return value.detach(), gradient

    @torch.no_grad()
    def value(self, points: Tensor) -> Tensor:
        """Loss (B,) without a gradient."""
        logits = self.model(points)
        self.forwards += 1
        value = self._value(logits)
        self._remember(points, logits, value)
        return value

    def _remember(self, points: Tensor, logits: Tensor, value: Tensor) -> None:
        if not self.track:
            return
        seen = {
            # a loss is comparable only within one definition, so targeted runs do not enter
            "loss": -value if self.targets is None else torch.full_like(value, torch.inf),
            "logit_margin": margins(logits, self.labels),
            "probability_margin": margins(logits.softmax(1), self.labels),
        }
        inside = self._inside(points)
        for name, current in seen.items():
            better = (current < self.best[name]) & inside
            self.best[name] = torch.where(better, current, self.best[name])
            self.points[name] = torch.where(better[:, None, None, None], points, self.points[name])
        wrong = (classes(logits) != self.labels) & inside & ~self.misclassified
        self.misclassified_point = torch.where(wrong[:, None, None, None], points, self.misclassified_point)
        self.misclassified |= wrong


    def _inside(self, points: Tensor) -> Tensor:
        """Which points belong to the threat, up to rounding: only those are remembered, wherever a search walks."""
        budget = self._threat.eps * (1.0 + 1e-5) + 1e-7
        near = norms(points - self.images, self._threat.norm) <= budget
        flat = points.flatten(1)
        return near & (flat.amin(1) >= -1e-6) & (flat.amax(1) <= 1.0 + 1e-6)


@dataclass(frozen=True, config=CONFIG)
class Attack(ABC):
    """Looks for a misclassified point inside a threat; its result is an upper bound on robustness."""

    threat: Threat
    loss: LossName = "ce"

    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")

    def __post_init__(self) -> None:
        if self.threat.norm not in self.norms:
            raise ValueError(f"{type(self).__name__} works in {', '.join(self.norms)}, not in {self.threat.norm}")

    @abstractmethod
    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Maximise the query's loss inside the threat.

        Args:
            query: the model, the images and the labels; call ``query.gradient`` or ``query.value`` on points.
            randomness: one draw for each row.

        Returns:
            the last iterate, (B, C, H, W), which training uses; evaluation uses the best points of the query.
        """

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, randomness: Randomness) -> Tensor:
        """Training's inner maximisation on the batch as it is.

        Parameters are frozen and the model is in eval mode inside; both are restored after.

        Returns:
            the search's last iterate, projected, detached, (B, C, H, W).
        """
        with frozen(model), evaluating(model), affine_norms(model):
            points = self.search(Query(model, images, labels, self, track=False), randomness)
        return self.threat.project(points.detach(), images)

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = TILE) -> AttackResult:
        """Attack every image; the result does not depend on batch size or order.

        Exactly so where the kernels treat all places of a tile alike, which some narrow matrix products do not in the
        last bits; an evaluation by units sorts the images first, so that each has a fixed place.

        Args:
            model: a classifier in eval mode.
            batch: images in [0, 1], labels, ids.
            seed: with each sample's id, the source of all randomness.
            tile: rows of every model call; the last tile is padded.

        Raises:
            HauberkError: if model or batch break the classifier contract.
        """
        if len(batch) == 0:
            raise HauberkError("there are no images to attack", "check --images and the split")
        check_classifier(model, batch)
        with frozen(model):
            return AttackResult.concatenate(
                [self._attack_tile(model, rows, seed, tile).head(used) for rows, used in batch.tiles(tile)]
            )

    def _attack_tile(self, model: nn.Module, batch: Batch, seed: int, tile: int) -> AttackResult:
        query = Query(model, batch.images, batch.labels, self, track=True)
        query.value(batch.images)  # the image itself is a point of the threat
        clean_prediction = decide(model, batch, seed, tile)
        self.search(query, PerSample(seed, batch.ids, "attack", batch.images.device))
        return self._judge(model, batch, query, clean_prediction, seed, tile)

    def _judge(
        self, model: nn.Module, batch: Batch, query: Query, clean_prediction: Tensor, seed: int, tile: int
    ) -> AttackResult:
        """Project the candidate points again, classify them again, and believe only that."""
        found = torch.where(query.misclassified[:, None, None, None], query.misclassified_point, query.points["loss"])
        if isinstance(model, Decides):  # a forward pass only stands in for the vote, and its first error may be none
            found = query.points["logit_margin"]
        rows = len(batch)
        adversarial = self.threat.project(found, batch.images)
        check = Batch(adversarial, batch.labels, batch.ids)
        prediction = decide(model, check, seed, tile)
        clean_wrong = clean_prediction != batch.labels
        adversarial = torch.where(clean_wrong[:, None, None, None], batch.images, adversarial)
        prediction = torch.where(clean_wrong, clean_prediction, prediction)
        with torch.no_grad():
            probabilities = model(adversarial).softmax(1)
            clean_probabilities = model(batch.images).softmax(1)
        count = torch.full((rows,), 0, dtype=torch.int64)
        return AttackResult(
            adversarial=adversarial,
            success=clean_wrong | self._changed(model, prediction, batch.labels),
            clean_prediction=clean_prediction,
            prediction=prediction,
            distance=self.threat.distance(adversarial, batch.images),
            loss=-query.best["loss"],
            best_loss_point=query.points["loss"],
            logit_margin=query.best["logit_margin"],
            logit_margin_point=query.points["logit_margin"],
            probability_margin=query.best["probability_margin"],
            probability_margin_point=query.points["probability_margin"],
            clean_probabilities=clean_probabilities,
            probabilities=probabilities,
            forwards=count + query.forwards,
            backwards=count + query.backwards,
            stopped=tuple("misclassified" if wrong else "steps" for wrong in clean_wrong.tolist()),
        )

    @staticmethod
    def _changed(model: nn.Module, prediction: Tensor, labels: Tensor) -> Tensor:
        """Whether the decision is wrong.  Logits that are NaN are; a vote that is too close to call is not, since it
        does not show that the class of the vote's limit has changed.
        """  # noqa: D205
        wrong = prediction != labels
        return wrong & (prediction != ABSTAIN) if isinstance(model, Decides) else wrong
