"""Attacks that return images of whole levels, as a file of 8 or 16 bits holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.base import AttackResult
from hauberk.attacks.gradients import behind_a_fence
from hauberk.attacks.judging import Asked, answered
from hauberk.attacks.wrapping import Wrapping
from hauberk.batch import Batch
from hauberk.classifier import TILE, channels_last, frozen, margins
from hauberk.errors import HauberkError
from hauberk.threats import CONFIG, norms

SNAP = 2.0**-22  # of white: a point so near to a level is that level, which float32 could not hold exactly
STRETCH = (1.0, 1.25, 1.5, 2.0, 4.0)  # rounding takes some of a change away, so longer ones are tried too
OFF = 0.1  # levels that an image may lie off the grid


@dataclass(frozen=True, config=CONFIG)
class OnGrid(Wrapping):
    r"""The points of an attack, rounded towards the image on the data's own grid, and judged again.

    With white w (255 or 65,535) and an image of whole levels, :math:`x = k / w`, a change :math:`\delta` becomes
    :math:`\mathrm{trunc}(w\,\delta) / w`.  No value moves further from the image than before, so the point stays in
    the ball in every norm; distances are those of whole levels, exactly.  Of each image the returned point, then the
    same change stretched by up to 4 and to the whole budget, and the point of highest loss are tried in this order,
    and the first that is misclassified after rounding is taken.  Margins and the nearest point are computed from the
    rounded points only.

    Args:
        threat: that of the attack inside.
        attack: the attack inside, None is APGD on the margin.
        white: the level that stands for 1: 255 for 8-bit data, 65,535 for 16-bit data.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.batch import Batch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]))  # is pixel 0 brighter?
        >>> batch = Batch(torch.tensor([0.6, 0.5, 0, 0]).reshape(1, 1, 2, 2), torch.tensor([0]), torch.tensor([0]))
        >>> from hauberk.attacks import PGD, OnGrid
        >>> from hauberk.threats import Linf
        >>> threat = Linf(20 / 255)
        >>> batch = Batch((batch.images * 255).round() / 255, batch.labels, batch.ids)
        >>> found = OnGrid(threat, attack=PGD(threat))(net, batch)
        >>> levels = found.adversarial * 255
        >>> bool(found.success), bool((levels - levels.round()).abs().max() < 1e-4)
        (True, True)
    """

    white: Literal[255, 65535] = 255

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.inner, Wrapping):
            raise ValueError(
                "on_grid cannot hold an attack with a goal of its own; put on_grid inside that attack instead: "
                "towards, attack: on_grid",
            )

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = TILE) -> AttackResult:
        """Attack every image and round what was found; as ``Attack.__call__``.

        Raises:
            HauberkError: if an image is not on the grid.
        """
        levels = batch.images.double() * self.white
        if bool(((levels - levels.round()).abs() > OFF).any()):
            raise HauberkError(
                f"expected images of whole levels of 1/{self.white}, got values between them",
                "16-bit data has 65,535 levels; images that were changed after conversion to floats cannot be rounded "
                "to levels",
            )
        searched = self.inner(model, batch, seed, tile)
        asked = self.judged(model, batch.images)
        with frozen(model), channels_last(model), behind_a_fence(model, seed):
            judge = _Judge(self, model, batch, searched, (asked, tile, seed))
            for points in self._points(searched, batch):
                judge.look(points)
        return judge.result()

    def rounded(self, points: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """The points rounded towards the images, (B, C, H, W), and their distance in whole levels, (B,) float64."""
        levels = (images.double() * self.white).round()
        change = points.double() * self.white - levels
        near, snap = change.round(), SNAP * self.white
        snapped = torch.where((change - near).abs() < snap, near, change.trunc())
        over = norms(snapped, self.threat.norm) / self.white > self.threat.eps
        shorter = change.sign() * (change.abs() - snap).clamp_min(0.0).trunc()
        whole = torch.where(over[:, None, None, None], shorter, snapped)
        return ((levels + whole).to(images) / self.white), norms(whole, self.threat.norm) / self.white

    def _points(self, found: AttackResult, batch: Batch) -> Iterator[Tensor]:
        """Points of the ball, before they are rounded."""
        change = found.adversarial - batch.images
        whole = (self.threat.eps / found.distance.clamp_min(1e-12)).to(change)
        factors = [torch.full_like(whole, factor) for factor in STRETCH] + [whole]
        yield batch.images
        for factor in factors:
            yield self.threat.project(batch.images + factor[:, None, None, None] * change, batch.images)
        yield self.threat.project(found.best_loss_point, batch.images)


class _Judge:
    """What is left of a search when its points have whole levels.

    Args:
        attack: how to round.
        model: the classifier.
        batch: the images.
        found: what the search found.
        asked: rule, tile and seed of an answer.
    """

    def __init__(
        self, attack: OnGrid, model: nn.Module, batch: Batch, found: AttackResult, asked: tuple[Asked, int, int]
    ) -> None:
        self.attack, self.model, self.batch, self.asked = attack, model, batch, asked
        self.columns = {name: getattr(found, name).clone() for name in vars(found) if name != "stopped"}
        wrong = found.clean_prediction != batch.labels
        self.columns |= {
            "success": wrong, "adversarial": batch.images.clone(), "distance": torch.zeros_like(found.distance),
            "nearest": torch.where(wrong, 0.0, torch.inf).to(found.nearest), "nearest_point": batch.images.clone(),
        }  # fmt: skip
        for name in ("logit_margin", "probability_margin"):
            self.columns[name] = torch.full_like(self.columns[name], torch.inf)

    def look(self, points: Tensor) -> None:
        """Round points of the images that stand, and judge them; the images themselves are judged for all."""
        first = points is self.batch.images
        everything = torch.arange(len(points), device=points.device)
        rows = everything if first else (~self.columns["success"]).nonzero().flatten()
        if len(rows) == 0:
            return
        batch = self.batch.select(rows)
        rounded, distance = self.attack.rounded(points[rows], batch.images)
        logits, fresh, prediction = answered(self.model, Batch(rounded, batch.labels, batch.ids), *self.asked)
        margin = margins(logits, batch.labels)
        done = self.attack.succeeded(self.model, prediction, batch.labels) & (distance <= self.attack.threat.eps)
        taken = done | (margin < self.columns["logit_margin"][rows])
        taken &= ~self.columns["success"][rows] | first
        probabilities = logits.softmax(1)
        new = {"adversarial": rounded, "prediction": prediction, "distance": distance, "draws": fresh,
               "probabilities": probabilities}  # fmt: skip
        for name, values in new.items():
            self.columns[name][rows[taken]] = values[taken]
        for name, values in (("logit_margin", margin), ("probability_margin", margins(probabilities, batch.labels))):
            lower = values < self.columns[name][rows]
            self.columns[name][rows[lower]] = values[lower]
            self.columns[f"{name}_point"][rows[lower]] = rounded[lower]
        self.columns["forwards"][rows] += 1
        if not first:
            self.columns["success"][rows] |= done
            self.columns["nearest"][rows[done]] = distance[done]
            self.columns["nearest_point"][rows[done]] = rounded[done]

    def result(self) -> AttackResult:
        """What the judged points say."""
        found = self.columns["success"].tolist()
        wrong = (self.columns["clean_prediction"] != self.batch.labels).tolist()
        reasons = ("misclassified" if w else "found" if f else "steps" for w, f in zip(wrong, found, strict=True))
        return AttackResult(**self.columns, stopped=tuple(reasons))
