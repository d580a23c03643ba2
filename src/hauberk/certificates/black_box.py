"""What a proof needs of a function that it treats as a black box: repeatable answers, each row by itself.

The base under smoothing and the accurate half of a mix may compute anything, as long as they are functions of one
image: the same answer at every call, whatever else is in the batch, at any place and in a batch of any size.  This is
checked by structure (batch norm that uses the statistics of its batch) and by calling the function.  Two answers to the
same image at the same place of batches of the same size must agree to the last bit, so that no size of the logits hides
a difference; across places and sizes kernels round differently, and differences of logits must agree up to that.

These checks cannot find what no probe triggers: a dependence on very special rows, a counter that changes the answer
after the last check, a clock.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hauberk.errors import HauberkError, reason
from hauberk.layers.walkable import random_state, same_state

ROWS = 16  # of most probes; the tile itself is probed less
SIZES = (1, 2, 3, 5, 9, 12, 17, 33)
ROUNDING = 64.0  # units in the last place of the largest logit, across places and sizes
SPREAD = 1e-4  # of the range of the logits, for the same reason
REFUSED = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)


class BlackBox:
    """A function that is certified as a black box, and its answers to a first batch.

    Args:
        model: in eval mode.
        images: (B, C, H, W) in [0, 1], on which it will be used.
        tile: rows of every call of the certificate.
        sigma: standard deviation of the noise that is added to the images before it sees them.
        role: what it is, for messages.

    Raises:
        HauberkError: if it is random, lets rows see each other, changes, or fails.
    """

    def __init__(self, model: nn.Module, images: Tensor, tile: int, sigma: float = 0.0, role: str = "model") -> None:
        self.model, self.role = model, role
        self._check_structure()
        draw = torch.Generator().manual_seed(0)
        self.rows = _rows(images, max(tile, ROWS), sigma, draw)
        self.first = self._ask_quietly(self.rows[:ROWS])
        self._check_company(self.rows[:ROWS], self.first, sigma, draw, thorough=True)
        if tile > ROWS:
            self._check_company(self.rows, self._ask(self.rows), sigma, draw, thorough=False)
        self._check_places_and_sizes(tile)
        self._check_gradient_mode()
        self.again()

    @torch.no_grad()
    def again(self) -> None:
        """Raise unless the first batch gets its first answers, to the last bit."""
        if not _same(self._ask(self.rows[:ROWS]), self.first):
            raise self._refusal(
                "gives different answers to the same images in two calls",
                "make it deterministic: it must not change or draw random numbers",
            )

    def _check_structure(self) -> None:
        for name, module in self.model.named_modules():
            if isinstance(module, _BatchNorm) and module.running_mean is None and module.running_var is None:
                raise self._refusal(
                    f"uses the statistics of each batch in {name or type(module).__name__!r}",
                    "normalise with fixed statistics: a batch is not part of the threat",
                )

    @torch.no_grad()
    def _ask(self, images: Tensor) -> Tensor:
        """The logits of some rows, which the model gets as a copy; (B, K)."""
        try:
            logits = self.model(images.clone())
        except REFUSED as error:
            raise self._refusal(f"fails on a batch of {len(images)}: {reason(error)}", "") from error
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images) or logits.shape[1] < 2:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise self._refusal(f"gives {shape} for {len(images)} images", "return logits of shape (B, K), K >= 2")
        return logits.detach().clone()

    @torch.no_grad()
    def _ask_quietly(self, images: Tensor) -> Tensor:
        """The same, twice; raises if anything random was drawn or anything kept has changed."""
        self._ask(images)  # what is made at the first call is made now
        before, kept = random_state(), self._kept()
        logits = self._ask(images)
        if not same_state(before, random_state()):
            raise self._refusal(
                "draws random numbers",
                "a certificate needs a deterministic function: fix the draws, or certify by smoothing",
            )
        if len(kept) != len(self._kept()) or not all(map(_same, kept, self._kept())):
            raise self._refusal(
                "changes its parameters or buffers at every call", "do not update statistics in eval mode"
            )
        return logits

    def _kept(self) -> list[Tensor]:
        """Copies of all parameters and buffers; a model may compute one anew at each call, if it stays the same."""
        return [t.detach().clone() for t in (*self.model.parameters(), *self.model.buffers())]

    def _check_company(self, rows: Tensor, first: Tensor, sigma: float, draw: torch.Generator, thorough: bool) -> None:
        """Raise if a row's answer moves when other rows change, at the same place of a batch of the same size."""
        for fixed, others in _companies(rows, sigma, draw, thorough):
            seen = self._ask(torch.where(fixed[:, None, None, None], rows, others))
            if _same(seen[fixed], first[fixed]):
                continue
            if not _same(self._ask(rows), first):
                raise self._refusal(
                    "gives different answers to the same images in two calls",
                    "make it deterministic: it must not draw random numbers",
                )
            raise self._refusal(
                "gives an image another answer when the other images of the batch change",
                "normalise with fixed statistics: a batch is not part of the threat",
            )

    def _check_places_and_sizes(self, tile: int) -> None:
        """Raise if a row's answer depends on its place, or on how many rows there are."""
        own = self.rows
        reference = self._ask(own[:ROWS])
        for size in (*SIZES, tile, 2 * tile + 1):
            index = torch.arange(size, device=own.device) % ROWS
            self._compare(self._ask(own[index]), reference[index], "how many images there are")
        for row in (0, min(1, len(own) - 1)):
            copies = self._ask(own[row : row + 1].expand(ROWS, *own.shape[1:]))
            self._compare(copies, reference[row : row + 1].expand_as(copies), "an image's place in the batch")
        turned = self._ask(own[:ROWS].flip(0)).flip(0)
        self._compare(turned, reference, "an image's place in the batch")

    def _check_gradient_mode(self) -> None:
        """Raise if the answer depends on whether gradients are wanted, as a user may want them; not all models can."""
        try:
            with torch.enable_grad():
                seen = self.model(self.rows[:ROWS].clone().requires_grad_(True)).detach()
        except REFUSED:
            return
        self._compare(seen, self.first, "whether gradients are wanted")

    def _compare(self, seen: Tensor, expected: Tensor, what: str) -> None:
        broken = ~expected.isfinite().all(1)
        if not torch.equal(broken, ~seen.isfinite().all(1)):
            raise self._refusal(
                f"gives answers that depend on {what}",
                "a certificate needs a model whose answer depends on one image only",
            )
        seen, expected = (z[~broken].double() for z in (seen, expected))
        if not len(seen):
            return
        apart = (seen - expected).abs().amax(1)
        spread = expected.amax(1) - expected.amin(1)
        allowed = SPREAD * spread.amax() + ROUNDING * torch.finfo(self.first.dtype).eps * expected.abs().amax()
        if bool((apart > allowed).any()):
            raise self._refusal(
                f"gives answers that depend on {what}",
                "a certificate needs a model whose answer depends on one image only",
            )

    def _refusal(self, what: str, hint: str) -> HauberkError:
        return HauberkError(f"the {self.role} ({type(self.model).__name__}) {what}", hint)


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(((first == second) | (first.isnan() & second.isnan())).all())


def _rows(images: Tensor, count: int, sigma: float, draw: torch.Generator) -> Tensor:
    """So many images as the model will see them: the first ones over and over, with noise if it is added."""
    index = torch.arange(count, device=images.device) % len(images)
    rows = images[index].clone()
    if sigma == 0.0 and len(images) < count:  # the rest differ, for equal rows may be treated alike
        drawn = torch.rand(count, *images.shape[1:], generator=draw).to(images)
        late = torch.arange(count, device=images.device) >= len(images)
        rows = torch.where(late[:, None, None, None], drawn, rows)
    return rows + sigma * torch.randn(rows.shape, generator=draw).to(images) if sigma else rows


def _companies(
    rows: Tensor, sigma: float, draw: torch.Generator, thorough: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Which rows stay, and what the others are replaced by."""
    place = torch.arange(len(rows), device=rows.device)
    others = _others(rows, sigma, draw)
    # every two places differ in a bit of their number, so that each row stays while each other one changes
    for bit in range(len(rows).bit_length() if thorough else 1):
        for side in (0, 1):
            fixed = (place >> bit) % 2 == side
            if bool(fixed.any()) and not bool(fixed.all()):
                for company in others if bit == 0 and thorough else others[:2]:
                    yield fixed, company
    for alone in (0, len(rows) - 1):
        for company in others[:4] if thorough else others[1:3]:
            yield place == alone, company
        yield place != alone, others[1]


def _others(rows: Tensor, sigma: float, draw: torch.Generator) -> list[Tensor]:
    """Batches of other images, from ordinary to extreme ones, as far as the model can meet them."""
    noise = sigma * torch.randn(rows.shape, generator=draw).to(rows)
    drawn = torch.rand(rows.shape, generator=draw).to(rows)
    blank, full = torch.zeros_like(rows), torch.ones_like(rows)
    spot = blank.clone()
    spot.flatten(1)[:, -1] = 1.0
    found = [drawn + noise, full + 4.0 * sigma, blank - 4.0 * sigma, (drawn > 0.5).to(rows) + noise, spot + noise]
    return [*found, rows.flip(0), (1.0 - rows), 0.5 * full]
