"""What a certificate measured of one image: all that is needed to derive its conclusion again.

Evidence is a plain value; the certificate derives decision, margin and radius from it.  On
record it is two mappings of plain values, one for the row and one that all rows share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hauberk import registry
from hauberk.certificates.rounding import SHARE
from hauberk.confidence import randomised_lower
from hauberk.noises import Gaussian, RandomStep
from hauberk.records import INLINE
from hauberk.statistics import anytime_lower, clopper_pearson_lower
from hauberk.threats import Norm

Plain = dict[str, Any]
Rule = Literal["fixed", "anytime", "randomised", "looks"]
Rival = Literal["rest", "runner_up"]
Draws = Literal["own", "shared"]
Floats = NDArray[np.float64]


class Evidence(Protocol):
    """Of one image."""

    def row(self) -> Plain:
        """What belongs to the image."""
        ...

    def shared(self) -> Plain:
        """What is the same for all images of an evaluation."""
        ...


def on_record(evidence: Sequence[Evidence]) -> tuple[list[Plain], Plain]:
    """Evidence on one evaluation's images for the record: the row of each, and what they share."""
    return [seen.row() for seen in evidence], evidence[0].shared()


# --- logits and Lipschitz constants -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Constants:
    """Lipschitz constants of the differences of a model's logits.

    Args:
        pairwise: of :math:`z_i - z_j`, (K, K) float64.
        norm: in which the image moves.
        frozen: the hash of the frozen predictor's numbers.
        layers: the bound of each layer, as plain values.
    """

    pairwise: Floats
    norm: Norm = "l2"
    frozen: str = ""
    layers: Sequence[Plain] = ()

    def scaled(self, factor: float) -> Constants:
        """The constants of logits that are multiplied by a factor."""
        return replace(self, pairwise=factor * self.pairwise)

    def plain(self) -> Plain:
        """For the record; a large table stays an array, which becomes a record of its own."""
        table = self.pairwise.tolist() if self.pairwise.size <= INLINE else self.pairwise
        return {"norm": self.norm, "frozen": self.frozen, "pairwise": table, "layers": list(self.layers)}


@dataclass(frozen=True)
class LogitMargins:
    """Logits of the frozen predictor, and how the deployed model stands to it.

    Args:
        logits: (K) float64.
        constants: of their differences.
        rounding: what is subtracted from every gap; None takes a bound from the size of the logits.
        deployed: the class of the model in its own precision; None is that of the largest logit.
        distance: how far the deployed model's logit gaps are from these.
        explained: how far rounding may move them.
    """

    logits: tuple[float, ...]
    constants: Constants
    rounding: float | None = None
    deployed: int | None = None
    distance: float = 0.0
    explained: float = math.inf

    @property
    def lost(self) -> float:
        """What rounding may have moved a logit difference by."""
        return 2.0 * SHARE * max(map(abs, self.logits)) if self.rounding is None else self.rounding

    @property
    def top(self) -> int:
        """The class of the largest logit."""
        return int(np.argmax(self.logits))

    def scaled(self, factor: float, constants: Constants) -> LogitMargins:
        """The evidence of a model whose logits, and so its constants, are multiplied by a factor."""
        logits = tuple(factor * z for z in self.logits)
        return replace(self, logits=logits, rounding=factor * self.lost, constants=constants)

    def row(self) -> Plain:
        """Logits, rounding, and the deployed model."""
        return {
            "logits": list(self.logits), "rounding": self.lost, "distance": self.distance,
            "deployed": self.top if self.deployed is None else self.deployed, "explained": self.explained,
        }  # fmt: skip

    def shared(self) -> Plain:
        """The constants."""
        return self.constants.plain()

    @classmethod
    def read(cls, row: Mapping[str, Any], shared: Mapping[str, Any]) -> LogitMargins:
        """From the record."""
        table = np.asarray(shared["pairwise"], dtype=np.float64)
        names = {k: row[k] for k in ("rounding", "deployed", "distance", "explained") if k in row}
        return cls(tuple(row["logits"]), Constants(table, shared.get("norm", "l2"), shared.get("frozen", "")), **names)


# --- votes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VotePlan:
    """The settings that are fixed before the first vote.

    Args:
        noise: what is done to the image, most often noise that is added.
        n0: votes that choose the class.
        n: votes that bound its probability.
        alpha: failure probability.
        rule: of the bound, and with it the numbers of votes for which it holds.  ``fixed``, Clopper-Pearson: this n
            alone; ``randomised``, exact on average over a uniform number of each image: likewise; ``looks``,
            Clopper-Pearson at alpha / L: all L looks at once; ``anytime``: all n at once.
        rival: ``rest``, every other class has at most what the chosen one leaves; ``runner_up``, at most an upper bound
            from the most votes that another class has, so that each of the two bounds may fail with alpha / 2.
        looks: of the rule of that name, the numbers of votes at which a bound may be taken, n the last of them.
        draws: ``own``, each image has noise of its own; ``shared``, all images have the same.
    """

    noise: RandomStep
    n0: int
    n: int
    alpha: float
    rule: Rule = "fixed"
    rival: Rival = "rest"
    looks: tuple[int, ...] = ()
    draws: Draws = "own"

    def judges(self, n: int) -> bool:
        """Whether the rule has a bound when sampling stops at this number of votes."""
        if self.rule == "looks":
            return n in self.looks
        return 0 < n <= self.n if self.rule == "anytime" else n == self.n

    def lower(self, votes: int, n: int, alpha: float, u: float = 1.0) -> float:
        """The rule's lower bound of the probability of a class from its number of votes.

        Args:
            votes: votes for the class.
            n: votes in all, which the rule judges.
            alpha: the bound exceeds the probability with at most this one.
            u: the image's uniform number, for the randomised rule only.
        """
        if self.rule == "anytime":
            return anytime_lower(votes, n, alpha)
        if self.rule == "randomised":
            return randomised_lower(votes, n, alpha, u)
        return clopper_pearson_lower(votes, n, alpha / max(1, len(self.looks)))  # Bonferroni over the looks

    def allows(self, other: VotePlan) -> bool:
        """Whether what another plan concludes from the same votes keeps the failure probability of this one."""
        return other == (replace(self, n=other.n) if self.rule == "anytime" else self)

    def plain(self) -> Plain:
        """For the record."""
        noise = registry.spec(self.noise)
        more: Plain = {"looks": list(self.looks)} if self.looks else {}
        more |= {"draws": self.draws} if self.draws != "own" else {}
        return {"noise": noise, "n0": self.n0, "n": self.n, "alpha": self.alpha, "rule": self.rule,
                "rival": self.rival} | more  # fmt: skip

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> VotePlan:
        """From the record; records older than these settings have the sigma of Gaussian noise and a fixed n."""
        noise = registry.build(told["noise"], "noise") if "noise" in told else Gaussian(told["sigma"])
        rule, rival = told.get("rule", "fixed"), told.get("rival", "rest")
        looks, draws = tuple(told.get("looks", ())), told.get("draws", "own")
        return cls(noise, told.get("n0", 1), told["n"], told["alpha"], rule, rival, looks, draws)


@dataclass(frozen=True)
class VoteCounts:
    """How often each class was voted for under noise, in two separate samples.

    Args:
        counts0: votes in the first sample, (K).
        counts: votes in the second sample, (K); the sums are n0 and n minus the draws without a vote.
        plan: of the votes.
        drawn: votes of the second sample; None is the plan's n, and fewer need a rule that judges so many.
        u: the image's uniform number in (0, 1], of the randomised rule alone; 1 is Clopper and Pearson's bound.
    """

    counts0: tuple[int, ...]
    counts: tuple[int, ...]
    plan: VotePlan
    drawn: int | None = None
    u: float = 1.0

    @property
    def n(self) -> int:
        """Votes of the second sample."""
        return self.plan.n if self.drawn is None else self.drawn

    @property
    def chosen(self) -> int:
        """The class with most of the first votes."""
        return int(np.argmax(self.counts0))

    def lower(self, votes: int, alpha: float) -> float:
        """See ``VotePlan.lower``, of the second votes."""
        return self.plan.lower(votes, self.n, alpha, self.u)

    def row(self) -> Plain:
        """The counts, how many votes the second are of where they are fewer than planned, and the uniform number."""
        fewer = {} if self.n == self.plan.n else {"drawn": self.n}
        drawn = {"u": self.u} if self.plan.rule == "randomised" else {}
        return {"counts0": list(self.counts0), "counts": list(self.counts)} | fewer | drawn

    def shared(self) -> Plain:
        """The plan."""
        return self.plan.plain()

    @classmethod
    def read(cls, row: Mapping[str, Any], shared: Mapping[str, Any]) -> VoteCounts:
        """From the record."""
        numbers = row.get("drawn"), row.get("u", 1.0)
        return cls(tuple(row["counts0"]), tuple(row["counts"]), VotePlan.read(shared), *numbers)


@dataclass(frozen=True)
class SplitCounts:
    """How often each class was voted for over all splits of an image in whole levels.

    Args:
        counts: votes for each class, (K); the sum is ``splits`` minus the views without a vote.
        pixels: values of the image.
        away: how far the farthest of them is from the whole level that it is rounded to, in levels.
        splits: m.
        seed: of the template.
        attacker: ``any`` or ``grid``.
    """

    counts: tuple[int, ...]
    pixels: int
    away: float
    splits: int
    seed: int
    attacker: str

    @property
    def top(self) -> int:
        """The class with most votes."""
        return int(np.argmax(self.counts))

    def row(self) -> Plain:
        """The votes, and where the image lies between whole levels."""
        return {"counts": list(self.counts), "pixels": self.pixels, "away": self.away}

    def shared(self) -> Plain:
        """Splits, template, and whom it holds against."""
        return {"splits": self.splits, "seed": self.seed, "attacker": self.attacker}

    @classmethod
    def read(cls, row: Mapping[str, Any], shared: Mapping[str, Any]) -> SplitCounts:
        """From the record."""
        plan = shared["splits"], shared["seed"], shared["attacker"]
        return cls(tuple(row["counts"]), row["pixels"], row["away"], *plan)


# --- points that a search found ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorstPoints:
    """Probabilities at an image, and at the worst points that a search found within a budget.

    Args:
        clean: at the image, (K).
        points: at the points, (n, K).
        norm: of the budget.
        eps: the budget.
    """

    clean: Floats
    points: Floats
    norm: Norm
    eps: float

    def row(self) -> Plain:
        """The probabilities."""
        return {"clean": self.clean.tolist(), "points": self.points.tolist()}

    def shared(self) -> Plain:
        """Norm and budget."""
        return {"norm": self.norm, "eps": self.eps}

    @classmethod
    def read(cls, row: Mapping[str, Any], shared: Mapping[str, Any]) -> WorstPoints:
        """From the record."""
        return cls(np.asarray(row["clean"]), np.asarray(row["points"]), shared["norm"], shared["eps"])


# --- a mix --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OfMix:
    """Evidence on the robust model of a mix, and what the mix decides.

    Args:
        base: on the robust model.
        alpha: the least weight that the robust model can have.
        deployed: the class of the mix as it is deployed.
        certificate: the name of the robust model's certificate.
    """

    base: Evidence
    alpha: float
    deployed: int | None
    certificate: str

    def row(self) -> Plain:
        """That of the robust model, and the mix's class."""
        return self.base.row() | ({} if self.deployed is None else {"mix_deployed": self.deployed})

    def shared(self) -> Plain:
        """That of the robust model, its certificate and the least weight."""
        return self.base.shared() | {"base": self.certificate, "mix_alpha": self.alpha}

    @classmethod
    def read(cls, row: Mapping[str, Any], shared: Mapping[str, Any]) -> OfMix:
        """From the record."""
        kinds: dict[str, type[LogitMargins | VoteCounts | WorstPoints]] = {
            "lipschitz": LogitMargins, "smoothing": VoteCounts, "local_lipschitz": WorstPoints,
        }  # fmt: skip
        base = kinds[shared["base"]].read(row, shared)
        return cls(base, float(shared["mix_alpha"]), row.get("mix_deployed"), str(shared["base"]))
