"""An estimate of a mix's attacked accuracy from attacks on its robust model alone; it is neither bound nor proof."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hauberk.certificates.mixed import needed_alpha
from hauberk.evaluation.metrics import Floats
from hauberk.records import Part
from hauberk.statistics import Interval, wilson

Ids = NDArray[np.int64]
LEAST_ALPHA = 0.5  # below it the worst accurate model decides alone, so there is no estimate


@dataclass(frozen=True)
class Estimate:
    """The alpha from which each image would keep its class at one budget, if attacks had found the smallest margins.

    Args:
        norm: norm of the attacks on the robust model.
        eps: their budget.
        ids: the images that the attacks saw.
        needed: for each image, the alpha from which it is expected to be right; None: at no alpha.
    """

    norm: str
    eps: float
    ids: tuple[int, ...]
    needed: tuple[float | None, ...]

    def accuracy(self, alpha: float) -> Interval:
        """Share of the images expected to be right under attack; no data for alpha below 1/2."""
        if alpha < LEAST_ALPHA:
            return wilson(0, 0)
        return wilson(sum(1 for a in self.needed if a is not None and a <= alpha), len(self.needed))


def estimates(parts: Iterable[Part], ids: Iterable[int], scale: float) -> tuple[Estimate, ...]:
    r"""One estimate for each threat that the robust model was attacked at.

    Where the robust model keeps a margin :math:`\mu > (1-\alpha)/\alpha` in probability, the mix predicts its class
    whatever the accurate model answers (Bai et al. 2024, Lemma 3.2).  Here :math:`\mu` is the smallest margin that
    attacks found, which may be too large, and the accurate model is taken as the worst possible, which may be too bad.

    Args:
        parts: attack records of the robust model.
        ids: the images of the mix; others are left out.
        scale: factor on the robust model's logits in the mix.  Attacks record the smallest margin at factor 1 only;
            for another factor it is the smallest at the image and at the points that the attacks returned.
    """
    known = [p for p in parts if not p.facts.get("stochastic")]
    wanted = np.array(sorted(ids), dtype=np.int64)
    found = []
    for norm, eps in sorted({_threat(p) for p in known}):
        seen, margins = _least_margins([p for p in known if _threat(p)[0] == norm], eps, wanted, scale)
        needed = [needed_alpha(float(m)) for m in margins]
        numbers = tuple(None if math.isnan(a) else a for a in needed)
        if numbers:
            found.append(Estimate(norm, eps, tuple(seen.tolist()), numbers))
    return tuple(found)


def scaled_margins(probabilities: Floats, labels: Ids, scale: float) -> Floats:
    """Lead of the label over the next class after the logits are multiplied: softmax(scale log p), (B, K) to (B,)."""
    with np.errstate(divide="ignore"):
        logits = scale * np.log(probabilities)
    raised = np.exp(logits - logits.max(1, keepdims=True))
    raised /= raised.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    own = raised[rows, labels]
    raised[rows, labels] = -np.inf
    lead: Floats = own - raised.max(1)
    return lead


def _least_margins(parts: list[Part], eps: float, wanted: Ids, scale: float) -> tuple[Ids, Floats]:
    """The images attacked at eps and the smallest margin of each; points of a smaller ball lie in this ball too."""
    ids = np.unique(np.concatenate([p.column("id") for p in parts if _threat(p)[1] == eps]))
    ids = np.intersect1d(ids, wanted)
    least, broken = np.full(len(ids), np.inf), np.zeros(len(ids), dtype=np.bool_)
    for part in parts:
        _, mine, theirs = np.intersect1d(ids, part.column("id"), return_indices=True)
        # a search with a larger budget may have passed an error within this budget
        broken[mine] |= part.column("nearest")[theirs].astype(np.float64) <= eps
        if _threat(part)[1] <= eps:
            least[mine] = np.minimum(least[mine], _margins(part, scale)[theirs])  # NaN stays: nothing is known
            broken[mine] |= part.column("success")[theirs].astype(np.bool_)
    least[broken] = -1.0
    kept = ~np.isnan(least)
    return ids[kept], least[kept]


def _margins(part: Part, scale: float) -> Floats:
    if scale == 1.0:
        return part.column("probability_margin").astype(np.float64)
    labels = part.column("label").astype(np.int64)
    found = np.full(len(labels), np.nan)
    clean, attacked = (part.table.column(n).to_pylist() for n in ("clean_probabilities", "probabilities"))
    pairs = list(zip(clean, attacked, strict=True))
    rows = np.array([i for i, (a, b) in enumerate(pairs) if a and b], dtype=np.int64)
    if len(rows):
        both = (np.array([pairs[i][k] for i in rows], dtype=np.float64) for k in (0, 1))
        found[rows] = np.minimum(*(scaled_margins(p, labels[rows], scale) for p in both))
    return found


def _threat(part: Part) -> tuple[str, float]:
    return str(part.unit["threat"]["name"]), float(part.unit["threat"]["eps"])
