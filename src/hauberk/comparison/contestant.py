"""Contestants and their compared quantities: outcomes image by image, of one run or of several seeds of one recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from hauberk.errors import HauberkError
from hauberk.evaluation.metrics import Bools, Floats
from hauberk.records import Part
from hauberk.report import collect
from hauberk.report.collect import Key, RunFacts
from hauberk.report.outcomes import Ids, at_budget, best_proof, correct, plain, right_by_id
from hauberk.report.tried import NOTHING, Tried, tried, unlike
from hauberk.threats import Norm, Threat, epsilon

Kind = Literal["clean", "attacked", "certified"]
KINDS: tuple[Kind, ...] = ("clean", "attacked", "certified")
SEED = re.compile(r"(.+)-seed(\d+)")
HASH = re.compile(r"\[[0-9a-f]{16}\]")
APART = ("seed", "evaluation", "expected", "summary")  # entries in which recipes of one model may differ


@dataclass(frozen=True)
class Quantity:
    """A compared quantity: the share of images that are right, that no attack broke, or that are certified.

    Args:
        kind: which of the three.
        norm: norm of the budget; empty for clean accuracy.
        eps: the budget or radius, pixel units.
    """

    kind: Kind
    norm: str = ""
    eps: float = 0.0

    def __str__(self) -> str:
        return self.kind if self.kind == "clean" else f"{self.kind} {self.norm} {epsilon(self.eps)}"


@dataclass(frozen=True)
class Outcome:
    """Whether each image counts, for each seed.

    Args:
        ids: ids of the images, sorted, shape (N,).
        counts: whether each image counts, shape (S, N).
        tried: the attacks; none unless the quantity is a robust accuracy.
        method: the certificate; empty if nothing is certified.
    """

    ids: Ids
    counts: Bools
    tried: Tried = NOTHING
    method: str = ""

    @property
    def how(self) -> list[str]:
        """The attacks, or the certificate; empty for clean accuracy."""
        return sorted(self.tried.used) if self.tried.used or not self.method else [self.method]

    def on(self, ids: Ids) -> Bools:
        """The outcomes of some of the images, shape (S, len(ids))."""
        found: Bools = self.counts[:, np.searchsorted(self.ids, ids)]
        return found

    def shares(self, ids: Ids) -> Floats:
        """The share of seeds in which each image counts, shape (len(ids),)."""
        found: Floats = self.on(ids).mean(0)
        return found


@dataclass(frozen=True)
class Contestant:
    """One predictor on one split, or several that are seeds of one recipe.

    Args:
        name: name of the run, without ``-seedN`` if several seeds are pooled.
        runs: paths of the runs with the records.
        seeds: seeds from the names of the runs; empty if only one run has this name.
        dataset: name of the data set.
        split: its split.
        labels: labels by image id.
        outcomes: outcomes by quantity.
        problems: problems that the check of the records found.
        predictor: the predictor as the records name it; empty if several are pooled.
        proved: norms in which there are proofs.
    """

    name: str
    runs: tuple[Path, ...]
    seeds: tuple[int, ...]
    dataset: str
    split: str
    labels: Mapping[int, int]
    outcomes: Mapping[Quantity, Outcome]
    problems: tuple[str, ...] = ()
    predictor: str = ""
    proved: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Single:
    """A contestant of one run before its name is final, with the predictor of the run, its recipe and its weights."""

    run: str
    which: str
    recipe: Mapping[str, Any]
    weights: frozenset[str]
    contestant: Contestant


def read(paths: Sequence[Path], threats: Sequence[Threat] = ()) -> list[Contestant]:
    """The contestants of some runs, in the order of the runs.

    Args:
        paths: run directories; names that end in ``-seed0``, ``-seed1`` ... and agree before that are pooled.
        threats: budgets of attacks and radii of certificates; without any, all budgets that a run was attacked at.

    Raises:
        HauberkError: if a run is named twice, has no record, or if seeds of one name have different recipes or the
            same weights.
    """
    places = [path.resolve() for path in paths]
    twice = next((path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise HauberkError(f"{twice} is named twice", "name each run once")
    runs = [collect.load([path])[0] for path in paths]
    found = [collect.by_predictor(run.parts) for run in runs]
    every = [part for groups in found for parts in groups.values() for part in parts
             if part.kind == "attack" and plain(part)]  # fmt: skip
    budgets = [(t.norm, t.eps) for t in threats] or sorted({_budget(part) for part in every})
    folders = [run.name for run in runs]
    names = [str(path) if folders.count(run.name) > 1 else run.name for path, run in zip(paths, runs, strict=True)]
    singles: list[_Single] = []
    for name, path, run, groups in zip(names, paths, runs, found, strict=True):
        measured = {k: ps for k, ps in groups.items() if any(p.kind in ("attack", "certificate") for p in ps)}
        own = [_single(name, path, run, key, parts, budgets) for key, parts in measured.items()]
        singles += sorted(own, key=lambda one: one.which)  # the run's own predictor first
    return _pooled(singles)


def _budget(part: Part) -> tuple[Norm, float]:
    return cast("Norm", part.unit["threat"]["name"]), float(part.unit["threat"]["eps"])


def _single(
    name: str, path: Path, run: RunFacts, key: Key, parts: list[Part], budgets: Sequence[tuple[Norm, float]]
) -> _Single:
    predictor, dataset, split = key
    attacks = [p for p in parts if p.kind == "attack"]
    certificates = [p for p in parts if p.kind == "certificate"]
    right = right_by_id(attacks or certificates)
    outcomes = {Quantity("clean"): _outcome(np.array([*right]), np.array([*right.values()], bool))}
    for norm, eps in budgets:
        left = at_budget(attacks, norm, eps)
        if left is not None:
            kept = _outcome(left.ids, left.standing, tried(attacks, norm, eps))
            outcomes[Quantity("attacked", norm, eps)] = kept
        best = best_proof(certificates, norm)
        if best is not None:
            reached = correct(best) & (best.column("radius") >= eps)
            proved = _outcome(best.column("id"), reached, method=str(best.unit["method"]["name"]))
            outcomes[Quantity("certified", norm, eps)] = proved
    labels = {i: y for p in parts if p.kind != "diagnosis"
              for i, y in zip(p.column("id").tolist(), p.column("label").tolist(), strict=True)}  # fmt: skip
    which = "" if predictor == run.info.get("predictor") else f": {HASH.sub('', predictor)}"
    which += "" if split == "test" else f" ({split})"
    problems = tuple(problem for verdict in run.verdicts for problem in verdict.problems)
    proofs = tuple(sorted({str(p.facts["norm"]) for p in certificates if p.facts["proof"] != "estimate"}))
    whole = Contestant(name + which, (path,), (), dataset, split, labels, outcomes, problems, predictor, proofs)
    weights = frozenset(str(part.unit["weights"]) for part in attacks + certificates)
    return _Single(name, which, {k: v for k, v in run.recipe.items() if k not in APART}, weights, whole)


def _outcome(ids: Ids, counts: Bools, attacks: Tried = NOTHING, method: str = "") -> Outcome:
    order = np.argsort(ids)
    return Outcome(ids[order], counts[order][None], attacks, method)


# --- seeds --------------------------------------------------------------------------------------------------------


def _pooled(singles: Iterable[_Single]) -> list[Contestant]:
    groups: dict[tuple[str, ...], list[_Single]] = {}
    for one in singles:
        named = SEED.fullmatch(one.run)
        key = (named[1] if named else one.run, one.which, one.contestant.dataset, one.contestant.split)
        groups.setdefault(key, []).append(one)
    return [_pool(key[0] + key[1], members) for key, members in groups.items()]


def _pool(name: str, members: list[_Single]) -> Contestant:
    """One contestant of several seeds; it has the outcomes that all seeds have, on the images that all seeds share."""
    first = members[0]
    if len(members) == 1:
        return first.contestant
    for other in members[1:]:
        differ = sorted(k for k in {*first.recipe, *other.recipe} if first.recipe.get(k) != other.recipe.get(k))
        if differ:
            raise HauberkError(
                f"{first.run} and {other.run} are named as seeds of one recipe, but differ in {', '.join(differ)}",
                "give the folders of different recipes different names",
            )
    for this, other in combinations(members, 2):
        if this.weights & other.weights:
            raise HauberkError(
                f"{this.run} and {other.run} are named as two seeds and have the same weights",
                "name each training once",
            )
    seeds = [int(SEED.fullmatch(one.run)[2]) for one in members]  # type: ignore[index]
    order = sorted(range(len(members)), key=seeds.__getitem__)
    everyone = [members[i].contestant for i in order]
    labels: dict[int, int] = {}
    for one in everyone:
        check_labels(labels, one.labels, name, one.name)
        labels |= one.labels
    shared = [q for q in everyone[0].outcomes if all(q in one.outcomes for one in everyone)]
    outcomes = {q: _together(name, q, [one.outcomes[q] for one in everyone]) for q in shared}
    return Contestant(
        name, tuple(one.runs[0] for one in everyone), tuple(seeds[i] for i in order), everyone[0].dataset,
        everyone[0].split, labels, outcomes, tuple(problem for one in everyone for problem in one.problems),
    )  # fmt: skip


def _together(name: str, quantity: Quantity, outcomes: Sequence[Outcome]) -> Outcome:
    attacks = [outcome.tried for outcome in outcomes]
    if unlike(attacks) or len({outcome.method for outcome in outcomes}) > 1:
        raise HauberkError(
            f"the seeds of {name} were not all measured alike: {quantity}",
            "evaluate each of them with the same settings",
        )
    ids = outcomes[0].ids
    for outcome in outcomes[1:]:
        ids = np.intersect1d(ids, outcome.ids)
    rows = np.concatenate([outcome.on(ids) for outcome in outcomes])
    used = attacks[0].used.union(*(a.used for a in attacks))
    met = attacks[0].met.intersection(*(a.met for a in attacks))
    return Outcome(ids, rows, Tried(used, met), outcomes[0].method)


def check_labels(one: Mapping[int, int], other: Mapping[int, int], name: str, rival: str) -> None:
    """Refuse images with the same id and different labels.

    Raises:
        HauberkError: if there is such an image.
    """
    differing = next((i for i in one.keys() & other.keys() if one[i] != other[i]), None)
    if differing is not None:
        raise HauberkError(
            f"image {differing} has the label {one[differing]} in {name} and {other[differing]} in {rival}",
            "compare runs that were measured on the same data",
        )
