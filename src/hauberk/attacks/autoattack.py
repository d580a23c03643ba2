"""AutoAttack: a sequence of attacks, each run on the images that survived the attacks before it (Croce & Hein 2020).

``standard``, ``plus`` and ``rand`` have the published budgets.  ``fast`` is the first half of ``standard``, which takes
about a fifth of its cost and, on adversarially trained models, finds nearly all that it finds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.apgd import APGD
from hauberk.attacks.base import Attack, AttackResult
from hauberk.attacks.fab import FAB
from hauberk.attacks.losses import AttackLoss
from hauberk.attacks.query import Query
from hauberk.attacks.square import Square
from hauberk.batch import Batch
from hauberk.classifier import TILE
from hauberk.errors import HauberkError
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Threat

QUICK = 1000  # queries of Square where it stands in for the fast suite
TARGETS = 9  # likeliest wrong classes, as many as there are
Version = Literal["fast", "standard", "plus", "rand", "custom"]


@dataclass(frozen=True, config=CONFIG)
class AutoAttack(Attack):
    """A sequence of attacks, each run on the images that survived the attacks before it; the result is the worst case.

    ====================  =====================================================================================
    ``fast``              APGD-CE, APGD-T
    ``standard``          APGD-CE, APGD-T, FAB-T (9 targets each), Square (5,000 queries); in L1 APGD-CE has 5
                          restarts, APGD-T 5 targets, and both shrink their budget from 3 eps
    ``plus``              APGD-CE and APGD-DLR (5 restarts each), FAB (5 restarts), Square, APGD-T, FAB-T
    ``rand``              APGD-CE and APGD-DLR, each gradient the mean of 20 draws
    ``custom``            ``attacks``
    ====================  =====================================================================================

    Args:
        threat: norm ball in the pixel box.
        version: which sequence.
        attacks: the attacks of ``custom``, in order; all must have this threat.
        losses: registered losses of the model's named outputs; an untargeted and a targeted APGD with each is added at
            the end.
        loss: not used.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.batch import Batch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]))  # is pixel 0 brighter?
        >>> batch = Batch(torch.tensor([0.6, 0.5, 0, 0]).reshape(1, 1, 2, 2), torch.tensor([0]), torch.tensor([0]))
        >>> from hauberk.attacks import AutoAttack
        >>> from hauberk.threats import Linf
        >>> [bool(AutoAttack(Linf(eps))(net, batch).success) for eps in (0.04, 0.06)]  # the truth is 0.05
        [False, True]
    """

    version: Version = "fast"
    attacks: tuple[Attack, ...] = ()
    losses: tuple[AttackLoss, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.version == "custom") != bool(self.attacks):
            raise ValueError("the setting attacks belongs to version custom, which needs at least one attack")
        if any(a.threat != self.threat for a in self.attacks):
            raise ValueError(f"every attack of the sequence must have the threat of the sequence, {self.threat}")

    def stages(self) -> tuple[Attack, ...]:
        """The attacks in order."""
        adaptive = tuple(APGD(self.threat, loss=loss, targets=n) for loss in self.losses for n in (None, TARGETS))
        planned = {**sequences(self.threat), "custom": self.attacks}[self.version] + adaptive
        return tuple(
            replace(stage, early_stop=self.early_stop, eot=stage.eot if self.eot is None else self.eot)
            for stage in planned
        )

    def search(self, query: Query, randomness: Randomness) -> Tensor:  # noqa: ARG002
        """Not available: training needs one search, not a sequence of attacks."""
        raise HauberkError("AutoAttack is for evaluation and cannot be used in training", "train with pgd or apgd")

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = TILE) -> AttackResult:
        """Attack every image, each stage on the survivors of the ones before; as ``Attack.__call__``."""
        first, *others = self.stages()
        found = first(model, batch, seed, tile)
        for stage in others:
            left = (~found.success).nonzero().flatten()
            if len(left) == 0:
                break
            found = joined(found, left, stage(model, batch.select(left), seed, tile))
        return found


def sequences(threat: Threat) -> dict[str, tuple[Attack, ...]]:
    """The attacks of each published version in a threat."""
    if threat.norm == "l1":
        ce, targeted = APGD(threat, restarts=5, shrinking=True), APGD(threat, loss="dlr", targets=5, shrinking=True)
    else:
        ce, targeted = APGD(threat), APGD(threat, loss="dlr", targets=TARGETS)
    fab, square = FAB(threat, targets=TARGETS), Square(threat)
    return {
        "fast": (ce, targeted),
        "standard": (ce, targeted, fab, square),
        "plus": (
            APGD(threat, restarts=5), APGD(threat, loss="dlr", restarts=5), FAB(threat, restarts=5), square,
            APGD(threat, loss="dlr", targets=TARGETS), fab,
        ),
        "rand": (APGD(threat, eot=20), APGD(threat, loss="dlr", eot=20)),
    }  # fmt: skip


def by_scores(threat: Threat) -> dict[str, tuple[Attack, ...]]:
    """``fast`` and ``standard`` for models without gradients: Square, with 1,000 queries and with 5,000."""
    return {"fast": (Square(threat, queries=QUICK),), "standard": (Square(threat),)}


SMALLER = {
    "logit_margin": "logit_margin_point", "probability_margin": "probability_margin_point", "nearest": "nearest_point",
}  # fmt: skip
SUMS = ("forwards", "backwards", "zero_gradients")


def joined(found: AttackResult, rows: Tensor, later: AttackResult) -> AttackResult:
    """The result with a later stage's findings for some rows; best points are the better of both, passes add up."""
    columns = {name: getattr(found, name).clone() for name in vars(found) if name != "stopped"}
    for name in ("adversarial", "success", "prediction", "distance", "probabilities", "draws"):
        columns[name][rows[later.success]] = getattr(later, name)[later.success]
    for value, point in SMALLER.items():
        better = getattr(later, value) < columns[value][rows]
        columns[value][rows[better]] = getattr(later, value)[better]
        columns[point][rows[better]] = getattr(later, point)[better]
    for name in SUMS:
        columns[name][rows] += getattr(later, name)
    # losses of different definitions do not compare: the first stage's stand
    stopped = list(found.stopped)
    for row, reason in zip(rows.tolist(), later.stopped, strict=True):
        stopped[row] = reason
    return AttackResult(**columns, stopped=tuple(stopped))
