"""The model as a search calls it: packed tiles of undecided images, counted passes, and the best points so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from hauberk.attacks.gradients import attackable
from hauberk.attacks.losses import AttackLoss, LossName, attack_loss, targeted_loss
from hauberk.boundary import called, no_gradient
from hauberk.classifier import classes, margins, named_outputs, prefers_channels_last
from hauberk.draws import one_draw
from hauberk.errors import HauberkError
from hauberk.pulse import beat
from hauberk.randomness import Key, Randomness
from hauberk.threats import Threat, norms

ROWS = 16  # a tile that is not full is padded to a multiple of this
KEPT = ("logit_margin", "probability_margin", "loss", "nearest")  # of what the best points are remembered


class Decided(Exception):  # noqa: N818 - not an error: the search has nothing left to do
    """Raised by a query when every image is decided; the base class of attacks catches it."""


class Query:
    """Value and gradient of the attacker's loss at points, for the rows that are still undecided.

    Args:
        model: in eval mode, parameters frozen.
        images: clean images, (B, C, H, W).
        labels: (B,).
        threat: only points inside it count as found.
        loss: what is maximised.
        tile: rows of every model call; None (training) calls the model on all rows at once.
        track: remember the best points (evaluation) or not (training, where only the last iterate is used).
        drop: a row is decided once a misclassified point inside the threat is seen.
        eot: model calls averaged for one value.
        key: seed and ids of an evaluation; None in training.
        random: the model is called draw by draw. Each draw is a deterministic net, numbered for each image by itself,
            so that the draws of an image do not depend on the other images.
        budget: radius of the ball in pixel units, one for each image, (B,), or one for all; None is the threat's.
    """

    def __init__(  # noqa: PLR0913 - what a search may know, and how it is watched
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        loss: LossName | AttackLoss,
        *,
        tile: int | None = None,
        track: bool = False,
        drop: bool = False,
        eot: int = 1,
        key: Key | None = None,
        random: bool = False,
        budget: float | Tensor | None = None,
    ) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.threat, self.loss, self.tile, self.track, self.drop, self.eot = threat, loss, tile, track, drop, eot
        self.key, self._draws = key, key if random else None
        self.budget = threat.eps if budget is None else budget
        self.targets: Tensor | None = None  # (B,); the classes that a targeted search wants
        self.mean: Literal["loss", "logits"] = "loss"  # the mean loss over draws, or the loss of the mean logits
        self.fixed = False  # the same draws at every call: those of the numbers 0, 1 ...
        rows, device = len(labels), images.device
        self.active = torch.ones(rows, dtype=torch.bool, device=device)
        self.wrong = torch.zeros_like(self.active)  # is the last point looked at misclassified, row by row
        self.forwards, self.backwards, self.zero_gradients = torch.zeros(3, rows, dtype=torch.int64, device=device)
        self.history: list[Tensor] | None = None  # a diagnosis sets a list and gets the value of every call, NaN where
        self._clean: Tensor | None = None  # a row was not evaluated
        self._channels_last = prefers_channels_last(model)
        if track:
            self._best = torch.full((len(KEPT), rows), torch.inf, device=device, dtype=images.dtype)
            self._points = images.repeat(len(KEPT), 1, 1, 1)  # one kind after another
            self.best = dict(zip(KEPT, self._best, strict=True))
            self.points = dict(zip(KEPT, self._points.view(len(KEPT), *images.shape).unbind(), strict=True))
            self.misclassified = torch.zeros(rows, dtype=torch.bool, device=device)

    @property
    def random(self) -> bool:
        """Whether the model is called draw by draw."""
        return self._draws is not None

    @property
    def clean_logits(self) -> Tensor:
        """Logits at the clean images, (B, K), computed once."""
        if self._clean is None:
            everything, seen = self._ordered(torch.arange(len(self.labels), device=self.images.device)), []
            with torch.no_grad():
                for rows, _, used in self._tiles(everything):
                    seen.append(self._logits(self._net(rows), self._taken(self.images, rows))[:used])
            self._clean = torch.cat(seen)[everything.argsort()]
            self.forwards += 1
        return self._clean

    @cached_property
    def project(self) -> Callable[[Tensor], Tensor]:
        """The projection of points (B, C, H, W) onto each image's ball within the box."""
        return self.threat.projection(self.images, self.budget)

    def start(self, randomness: Randomness) -> Tensor:
        """A random point of each image's ball, (B, C, H, W)."""
        return self.threat.random_point(self.images, randomness, self.budget)

    def ascend(self, points: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """The points moved along the steepest direction and projected; the size is a number or (B,), pixel units."""
        return self.project(self.threat.ascend(points, gradient, size, self.budget))

    def retire(self, rows: Tensor) -> None:
        """Take rows (a mask, (B,)) out of the search: they are evaluated no more."""
        self.active &= ~rows

    def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (B,) and its gradient with respect to the points (B, C, H, W); zero for decided rows.

        Raises:
            Decided: if there is no undecided row left.
            HauberkError: if a gradient is NaN or infinite (in an evaluation).
        """
        if not self.track and bool(self.active.all()):
            leaf = points.detach().requires_grad_(True)
            value, logits, gradient = self._differentiate(leaf, slice(None))
            self.wrong = classes(logits) != self.labels
            return value, gradient
        asked, seen = self._undecided(), []
        values, gradients = self._zeros(points), torch.zeros_like(points)
        for rows, own, used in self._tiles(asked):
            leaf = self._taken(points, rows).detach().requires_grad_(True)
            value, logits, gradient = self._differentiate(leaf, rows)
            values[own], gradients[own] = value[:used], gradient[:used]
            self._count(own, gradient[:used])
            seen.append(logits[:used])
        self._remember(asked, points, torch.cat(seen), values)
        self._keep(values, asked)
        return values, gradients

    @torch.no_grad()
    def value(self, points: Tensor) -> Tensor:
        """Loss (B,) without a gradient; zero for decided rows."""
        asked, seen = self._undecided(), []
        values = self._zeros(points)
        for rows, own, used in self._tiles(asked):
            value, logits = self._average(self._taken(points, rows), rows)
            values[own] = value[:used]
            self._count(own)
            seen.append(logits[:used])
        logits = torch.cat(seen)
        if points is self.images and self._clean is None and self.loss != "kl":
            self._clean = logits.new_zeros(len(points), logits.shape[1])
            self._clean[asked] = logits
        self._remember(asked, points, logits, values)
        self._keep(values, asked)
        return values

    def differences(self, points: Tensor, rivals: Tensor, only: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""How far some classes are ahead of the label, :math:`z_j - z_y`, and the gradients: k backward passes.

        Args:
            points: where, (B, C, H, W).
            rivals: the classes j, (B, k); with k = 0 the points are looked at and nothing is differentiated.
            only: the rows wanted, a mask (B,); None is all of them.

        Returns:
            differences (B, k) and their gradients (B, k, C, H, W); zero for decided rows and rows that are not wanted.
        """
        asked, seen = self._undecided(), []
        asked = asked if only is None else asked[only[asked]]
        values, losses = torch.zeros(rivals.shape, device=points.device, dtype=points.dtype), self._zeros(points)
        gradients = torch.zeros(*rivals.shape, *points.shape[1:], device=points.device, dtype=points.dtype)
        for rows, own, used in self._tiles(asked):
            leaf = self._taken(points, rows).detach().requires_grad_(True)
            with torch.set_grad_enabled(rivals.shape[1] > 0):
                value, logits = self._average(leaf, rows)
                ahead = logits.gather(1, rivals[rows]) - logits.gather(1, self.labels[rows][:, None])
                found = [
                    self._backward(a, leaf, retain_graph=k + 1 < rivals.shape[1])[:used]
                    for k, a in enumerate(ahead.unbind(1))
                ]
            for k, gradient in enumerate(found):
                gradients[own, k] = gradient
            self._count(own, *found)
            values[own], losses[own] = ahead.detach()[:used], value.detach()[:used]
            seen.append(logits.detach()[:used])
        if seen:
            self._remember(asked, points, torch.cat(seen), losses)
        return values, gradients

    # --- model calls ----------------------------------------------------------------------------------------------

    def _undecided(self) -> Tensor:
        """The numbers of the rows that are still searched."""
        rows = self.active.nonzero().flatten()
        if len(rows) == 0:
            raise Decided
        return self._ordered(rows)

    def _ordered(self, rows: Tensor) -> Tensor:
        """Row numbers, those first that have met the fewest draws: a tile is one draw."""
        return rows if self._draws is None else rows[self.forwards[rows].argsort(stable=True)]

    def _zeros(self, points: Tensor) -> Tensor:
        return torch.zeros(len(points), device=points.device, dtype=points.dtype)

    def _taken(self, points: Tensor, rows: Tensor | slice) -> Tensor:
        """A copy of some rows, in the memory layout in which convolutions are fastest (measured: 1.3 to 1.9 times)."""
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        there = points[rows]
        # a model that works in place must not reach the search's own points
        return there.clone(memory_format=layout) if isinstance(rows, slice) else there.contiguous(memory_format=layout)

    def _tiles(self, rows: Tensor) -> Iterator[tuple[Tensor | slice, Tensor | slice, int]]:
        """Row numbers in tiles, padded by repeating the last one; the real ones of each; and how many these are.

        Where all rows stand, a full tile is a slice, so that nothing is gathered.
        """
        size = self.tile or len(rows)
        runs = [rows] if self._draws is None or self.fixed else self._runs(rows)
        whole = len(runs) == 1 and len(rows) == len(self.labels)
        for run in runs:
            for start in range(0, len(run), size):
                part = run[start : start + size]
                missing = 0 if self.tile is None else min(-len(part) % ROWS, size - len(part))
                if whole and not missing:
                    every = slice(start, start + len(part))
                    yield every, every, len(part)
                else:
                    yield torch.cat([part, part[-1:].expand(missing)]), part, len(part)

    def _runs(self, rows: Tensor) -> list[Tensor]:
        """Ordered rows, split where the number of draws that they have met changes."""
        counts = self.forwards[rows].unique_consecutive(return_counts=True)[1]
        return list(torch.split(rows, counts.tolist()))

    def _net(self, rows: Tensor | slice, nth: int = 0) -> nn.Module:
        """The model, or the next draws of a random one for these rows, which have met equally many."""
        if self._draws is None:
            return self.model
        ids = torch.tensor(self._draws.ids, device=self.images.device)[rows]
        number = 0 if self.fixed else int(self.forwards[rows][0])
        return one_draw(self.model, replace(self._draws, number=number + nth, ids=tuple(ids.tolist())))

    def _passing(self, net: nn.Module) -> AbstractContextManager[None]:
        """Inside, surrogates pass gradients in a draw, as the attack has them pass in the model itself."""
        return nullcontext() if net is self.model else attackable(net)

    def _logits(self, net: nn.Module, points: Tensor) -> Tensor:
        with self._passing(net):
            return called(net, points)

    def _differentiate(self, leaf: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            value, logits = self._average(leaf, rows)
            gradient = self._backward(value, leaf)
        return value.detach(), logits.detach(), gradient

    def _average(self, points: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Loss and logits; of a random model the mean loss and the log of the mean probabilities over draws.

        Where the mean is that of logits, the logits are these, and the loss is theirs.
        """
        if self.mean == "logits" and self.eot > 1:
            return self._of_mean_logits(points, rows)
        if self.eot == 1:
            return self._once(points, rows)
        total, together = self._once(points, rows)
        together = together.log_softmax(1)
        for nth in range(1, self.eot):
            value, logits = self._once(points, rows, nth)
            total = total + value
            together = torch.logaddexp(together, logits.log_softmax(1))
        return total / self.eot, together - math.log(self.eot)

    def _once(self, points: Tensor, rows: Tensor | slice, nth: int = 0) -> tuple[Tensor, Tensor]:
        labels, net = self.labels[rows], self._net(rows, nth)
        targets = None if self.targets is None else self.targets[rows]
        if isinstance(self.loss, AttackLoss):
            with self._passing(net):
                outputs = named_outputs(net, points)
            return self.loss(outputs, labels, targets), outputs["logits"]
        logits = self._logits(net, points)
        return self._loss(self.loss, logits, rows), logits

    def _of_mean_logits(self, points: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        if isinstance(self.loss, AttackLoss):
            raise HauberkError(
                "a loss that reads several named outputs cannot be computed from averaged logits",
                "average the losses instead (mean=loss), or use the loss ce, margin or dlr",
            )
        mean = self._logits(self._net(rows), points) / self.eot
        for nth in range(1, self.eot):
            mean = mean + self._logits(self._net(rows, nth), points) / self.eot
        return self._loss(self.loss, mean, rows), mean

    def _loss(self, loss: LossName, logits: Tensor, rows: Tensor | slice) -> Tensor:
        labels = self.labels[rows]
        if self.targets is not None:
            return targeted_loss(loss, logits, labels, self.targets[rows])
        clean = self.clean_logits[rows] if loss == "kl" else None
        return attack_loss(loss, logits, labels, clean)

    # --- what is kept ---------------------------------------------------------------------------------------------

    def _backward(self, value: Tensor, leaf: Tensor, retain_graph: bool = False) -> Tensor:
        """The gradient of the summed values, which exists and is finite."""
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), leaf, retain_graph=retain_graph, allow_unused=True)
        if gradient is None:
            raise no_gradient()
        return gradient

    def _count(self, rows: Tensor | slice, *gradients: Tensor) -> None:
        if not self.track:
            return
        beat(_length(rows) * self.eot * (1 + len(gradients)))
        self.forwards[rows] += self.eot
        for gradient in gradients:
            peak = gradient.abs().amax((1, 2, 3))  # NaN and infinity come through, at a tenth of the cost of isfinite()
            if not bool(peak.isfinite().all()):
                raise HauberkError(
                    "the model's gradient is NaN or infinite, so a gradient attack cannot work",
                    "look for sqrt(0), log(0) or 0/0 in its forward pass; until then its robustness cannot be judged",
                )
            self.backwards[rows] += self.eot
            self.zero_gradients[rows] += peak == 0

    def _keep(self, values: Tensor, asked: Tensor) -> None:
        if self.history is not None:
            self.history.append(torch.full_like(values, torch.nan).index_copy_(0, asked, values[asked]))

    def _remember(self, rows: Tensor, points: Tensor, logits: Tensor, values: Tensor) -> None:
        """Keep what the rows show, of their points and values among all (B, ...) and their logits (R, K).

        Pixels are looked at only in rows where something may get better.
        """
        labels = self.labels[rows]
        wrong = self.wrong[rows] = classes(logits) != labels
        if not self.track:
            return
        # a loss is comparable only within one definition, so targeted runs do not enter; a registered loss says itself
        # how near an attack has come
        comparable = self.targets is None or isinstance(self.loss, AttackLoss)
        loss = -values[rows] if comparable else torch.full_like(logits[:, 0], torch.inf)
        found = torch.stack([margins(logits, labels), margins(logits.softmax(1), labels), loss])
        at = (wrong | (found < self._best[:3, rows]).any(0)).nonzero().flatten()
        if len(at) == 0:
            return
        rows, wrong = rows[at], wrong[at]
        there, origins = (points, self.images) if len(rows) == len(points) else (points[rows], self.images[rows])
        distance = norms(there - origins, self.threat.norm)
        flat = there.flatten(1)
        boxed = (flat.amin(1) >= -1e-6) & (flat.amax(1) <= 1.0 + 1e-6)
        # up to rounding: the base class projects again before it believes anything
        budget = self.budget[rows] if isinstance(self.budget, Tensor) else self.budget
        inside = boxed & (distance <= budget * (1.0 + 1e-5) + 1e-7)
        found = torch.cat([found[:, at], distance[None]])
        allowed = torch.stack([inside, inside, inside, wrong & boxed])
        kinds, places = ((found < self._best[:, rows]) & allowed).nonzero(as_tuple=True)
        self._best[kinds, rows[places]] = found[kinds, places]
        put(self._points, kinds * len(points) + rows[places], there, places)
        self.misclassified[rows] |= wrong & inside
        if self.drop:
            self.active[rows] &= ~(wrong & inside)


def _length(rows: Tensor | slice) -> int:
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


def put(store: Tensor, rows: Tensor, source: Tensor, taken: Tensor | None = None) -> None:
    """Write some rows of the source, by default those of the same numbers, into the rows of the store."""
    taken = rows if taken is None else taken
    if len(rows) == len(store) == len(source):
        store.copy_(source)
    elif len(rows):
        store.index_copy_(0, rows, source.index_select(0, taken))
