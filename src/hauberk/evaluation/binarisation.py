"""An active test of an attack: it must find an adversarial point that is known to exist (Zimmermann et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hauberk.attacks import Attack, Query
from hauberk.attacks.losses import AttackLoss
from hauberk.attacks.query import Decided
from hauberk.batch import Batch
from hauberk.boundary import called
from hauberk.classifier import logits_of, margins
from hauberk.randomness import PerSample, Randomness
from hauberk.threats import Threat, norms

INNER = 96  # points of the inner ball that the discriminator must keep
GUESSES = 64  # random points of the border, to see how hard the test is
INNER_RADIUS = 0.9  # of the budget
GAP = 0.1  # how far the boundary lies behind the planted point, in parts of the way to the innermost points
RIDGE = 1.0  # of the mean square; with less, weights fall on features that are flat at the image and rare in the ball

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Binarisation:
    """The results of the test on B images, each (B,) bool.

    Args:
        planted: a linear discriminator of the features keeps the inner points and gives the planted one away.
        found: the attack found an adversarial point of the binary classifier.
        guessed: random points of the border found one.
    """

    planted: Tensor
    found: Tensor
    guessed: Tensor


class Binarised(nn.Module):
    """The frozen features with one linear discriminator for each image; ``rows`` selects those in use."""

    def __init__(self, features: Features, origin: Tensor, weight: Tensor, offset: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.features, self.origin, self.weight, self.offset, self.scale = features, origin, weight, offset, scale
        self.rows: Tensor | slice = slice(None)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of "inner" and "planted", (B, 2)."""
        moved = self.features(images) - self.origin[self.rows]  # the difference first: it is small against both
        score = (moved * self.weight[self.rows]).sum(1) - self.offset[self.rows]
        return torch.stack([torch.zeros_like(score), score * self.scale[self.rows]], 1)

    def select(self, rows: Tensor) -> Binarised:
        """The discriminators of some images, by mask."""
        return Binarised(self.features, self.origin[rows], self.weight[rows], self.offset[rows], self.scale[rows])


class RowQuery(Query):
    """A query that sets the rows of the model before each call."""

    def _once(self, points: Tensor, rows: Tensor | slice, nth: int = 0) -> tuple[Tensor, Tensor]:
        self.model.rows = rows  # type: ignore[assignment]
        return super()._once(points, rows, nth)

    @property
    def clean_logits(self) -> Tensor:
        """Logits at the clean images, (B, 2)."""
        if self._clean is None:
            everything, parts = torch.arange(len(self.labels), device=self.images.device), []
            for rows, _, used in self._tiles(everything):
                self.model.rows = rows  # type: ignore[assignment]
                with torch.no_grad():
                    parts.append(called(self.model, self.images[rows])[:used])
            self._clean = torch.cat(parts)
            self.forwards += 1
        return self._clean


def binarise(
    model: nn.Module, batch: Batch, threat: Threat, attack: Attack, seed: int = 0, tile: int = 64
) -> Binarisation:
    r"""Plant an adversarial point on the border of every ball and see whether the attack finds one.

    For each image a ridge regression on the model's features separates ``INNER`` points of the ball of nine tenths of
    the budget from one point of the border; its boundary lies just before that point, so the binary classifier has an
    adversarial point by construction.  Its logits are scaled so that the margin at the image is the model's own: what
    saturates in the model saturates here.

    Args:
        model: in eval mode, parameters frozen, deterministic.
        batch: images, rightly classified.
        threat: of the evaluation.
        attack: searches inside the threat; a loss of its own is replaced by cross-entropy, since there are two classes.
        seed: with each id, the source of all randomness.
        tile: rows of a model call.
    """
    features = feature_map(model, batch.images[:1])
    binary, planted = _plant(model, features, batch, threat, seed, tile)
    there = batch.select(planted)
    binary = binary.select(planted)
    found, guessed = torch.zeros_like(planted), torch.zeros_like(planted)
    if len(there):
        for stage in getattr(attack, "stages", lambda: (attack,))():  # AutoAttack is a sequence of searches
            query = _query(binary, there, stage, tile)
            with suppress(Decided):
                stage.search(query, PerSample(seed, there.ids, "attack", there.images.device))
            found[planted] |= query.misclassified
        query = _query(binary, there, attack, tile)
        draws = PerSample(seed, there.ids, "diagnosis guesses", there.images.device)
        with suppress(Decided):
            for _ in range(GUESSES):
                query.value(border_point(threat, there.images, draws))
        guessed[planted] = query.misclassified
    return Binarisation(planted, found, guessed)


def _query(binary: Binarised, batch: Batch, attack: Attack, tile: int) -> RowQuery:
    """The binary classifier as the attack sees it; an adaptive loss reads outputs that it does not have."""
    loss = "ce" if isinstance(attack.loss, AttackLoss) else attack.loss
    labels = torch.zeros_like(batch.labels)
    return RowQuery(binary, batch.images, labels, attack.threat, loss, tile=tile, track=True, drop=attack.early_stop)


def border_point(threat: Threat, images: Tensor, randomness: Randomness, share: float = 1.0) -> Tensor:
    """A random point of the ball's border, cut to the box: random signs in Linf, a random direction in L2 and L1."""
    aim = randomness.normal(*images.shape[1:]).to(images)
    if threat.norm == "l1":  # not the steepest step, which is one pixel: there are too few of those
        direction = aim / norms(aim, "l1")[:, None, None, None].clamp_min(1e-30)
    else:
        direction = threat.steepest_step(aim)
    return threat.project(images + share * threat.eps * direction, images)


def feature_map(model: nn.Module, images: Tensor) -> Features:
    """The input of the last layer, (B, F), if that is an ``nn.Linear`` whose output is the model's; else the logits."""
    last: list[tuple[nn.Linear, Tensor]] = []
    hooks = [
        m.register_forward_hook(lambda module, _, out: last.append((module, out)))
        for m in model.modules()
        if isinstance(m, nn.Linear)
    ]
    with torch.no_grad():
        output = model(images.clone())
    for hook in hooks:
        hook.remove()
    if not last or last[-1][1] is not output or sum(m is last[-1][0] for m, _ in last) > 1:
        return partial(called, model)
    head = last[-1][0]

    def penultimate(points: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            model(points.clone())  # it may work in place
        finally:
            hook.remove()
        return seen[0].clone()

    return penultimate


@torch.no_grad()
def _plant(
    model: nn.Module, features: Features, batch: Batch, threat: Threat, seed: int, tile: int
) -> tuple[Binarised, Tensor]:
    """The discriminators of all images, and where they separate; in float64 until they are used."""
    randomness = PerSample(seed, batch.ids, "diagnosis planting", batch.images.device)

    def at(points: Tensor) -> Tensor:
        parts = Batch(points, batch.labels, batch.ids).tiles(tile)
        return torch.cat([features(p.images)[:used] for p, used in parts]).double()

    origin = at(batch.images)
    inner = [origin]
    for k in range(INNER):
        if k % 2:
            point = border_point(threat, batch.images, randomness, INNER_RADIUS)
        else:
            point = threat.random_point(batch.images, randomness, INNER_RADIUS * threat.eps)
        inner.append(at(point))
    border = border_point(threat, batch.images, randomness)
    seen, goal = torch.stack(inner, 1) - origin[:, None], at(border) - origin  # (B, n, F) and (B, F)
    weight = discriminator(seen, goal)
    scores, top_score = (seen * weight[:, None]).sum(2), (goal * weight).sum(1)
    gap = top_score - scores.amax(1)
    offset = top_score - GAP * gap
    own = margins(logits_of(model, batch, tile), batch.labels).double()
    scale = own / offset.clamp_min(1e-300)  # the image itself has the score -offset
    values = (v.to(batch.images.dtype) for v in (origin, weight, offset, scale))
    binary = Binarised(features, *values)
    separated = (gap > 1e-3 * (scores.amax(1) - scores.amin(1))) & scale.isfinite() & (own > 0)
    return binary, separated & (binary(border)[:, 1] > 0) & (binary(batch.images)[:, 1] < 0)


def discriminator(inner: Tensor, planted: Tensor) -> Tensor:
    r"""Ridge regression of 1 at the planted and 0 at the inner features, about the inner mean, scaled to unit rows.

    .. math:: w = \Phi^T (\Phi\Phi^T + \lambda I)^{-1} t

    Args:
        inner: (B, n, F).
        planted: (B, F).

    Returns:
        (B, F).
    """
    rows = torch.cat([inner, planted[:, None]], 1) - inner.mean(1, keepdim=True)
    gram = rows @ rows.transpose(1, 2)
    size = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)
    eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    target = torch.zeros_like(gram[:, :, :1])
    target[:, -1] = 1.0
    solution: Tensor = torch.linalg.solve(gram + RIDGE * size[:, None, None] * eye, target)
    weight = (rows.transpose(1, 2) @ solution).squeeze(2)
    unit: Tensor = weight / torch.linalg.vector_norm(weight, dim=1, keepdim=True).clamp_min(1e-30)
    return unit
