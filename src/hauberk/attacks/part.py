"""An attack on a part of a defence, whose points are then tried on the whole defence."""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks.apgd import APGD
from hauberk.attacks.base import Attack
from hauberk.attacks.query import Query
from hauberk.attacks.transfer import search_on
from hauberk.capabilities import HasParts
from hauberk.errors import HauberkError
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class PartAttack(Attack):
    """Attack a part of the model, and try the points that were found there on the whole model.

    A defence has a method ``parts()`` that names classifiers to search in its place.  A mixed classifier's are
    ``accurate`` and ``robust``, its bases (the STD and ROB attacks of Bai et al. 2024, Section 5.1.1); an adaptive one
    has ``gray_box`` too, itself without the gradient of alpha (attack setting A there, Section 4.2).

    The points that are tried are the search's last point and the part's points of highest loss, of smallest logit
    margin, and nearest of those that the part gets wrong.  A record counts the passes of the whole model, one for each
    point, not those of the part.

    Args:
        threat: norm ball in the pixel box.
        loss: the loss by which the worst point of the whole model is kept; the search has the loss of ``attack``.
        part: its name.
        attack: the search on the part, under the same threat; None is APGD on the margin.  Its ``early_stop`` is not
            used: what fools the part may not fool the whole, so the search goes on to its end.
    """

    part: str = "accurate"
    attack: Attack | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack is not None and self.attack.threat != self.threat:
            raise ValueError(f"the part is attacked under {self.attack.threat}, but the threat is {self.threat}")

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Search on the part, then look at its points once each; the search's last point is returned."""
        return search_on(self._part(query.model), self.search_of, query, randomness)

    @property
    def search_of(self) -> Attack:
        """The search on the part."""
        return APGD(self.threat, loss="margin") if self.attack is None else self.attack

    def _part(self, model: nn.Module) -> nn.Module:
        if not isinstance(model, HasParts):
            raise HauberkError(
                f"expected a model with parts, got {type(model).__name__}", "for example a mixed classifier has parts"
            )
        known = model.parts()
        if self.part not in known:
            raise HauberkError(
                f"the model has no part {self.part!r}",
                registry.suggestion(self.part, list(known)) or f"its parts are {', '.join(known)}",
            )
        return known[self.part]
