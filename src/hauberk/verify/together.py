"""Contradictions between records of one run: labels, decisions, stages, proofs and attacks, a mix and its attacks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import special, stats

from hauberk.records import Part, content_hash
from hauberk.verify.attacks import ROUNDING, decides_itself
from hauberk.verify.paths import NEAR
from hauberk.verify.verdict import samples
from hauberk.verify.wrapped import core

# published sequences of AutoAttack, in order; every adaptive loss adds two APGDs
STAGES = {
    "fast": ("apgd", "apgd"),
    "standard": ("apgd", "apgd", "fab", "square"),
    "plus": ("apgd", "apgd", "fab", "square", "apgd", "fab"),
    "rand": ("apgd", "apgd"),
}
SWEEP, A_ROUND = "eot_sweep", 2  # two stages for each round, see hauberk.attacks.eot_sweep
LOGITS = 1e-3  # how far probabilities of recorded logits may lie from those that an attack recorded
CHANCE = 1e-6  # a number of failures of probabilistic certificates is a contradiction below this probability


def together_problems(parts: Sequence[Part]) -> Iterator[str]:
    """Whether the evaluations of a run contradict each other."""
    yield from _label_problems(parts)
    yield from _twice_problems(parts)
    yield from _stage_problems([p for p in parts if "suite" in p.unit])
    subjects = defaultdict(list)
    for part in parts:
        if part.kind != "diagnosis":
            function = part.unit["predictor"], part.unit.get("answers")
            subjects[*function, part.facts["dataset"], part.facts["split"]].append(part)
    for found in subjects.values():
        attacks = [p for p in found if p.kind == "attack"]
        certificates = [p for p in found if p.kind == "certificate" and p.facts["proof"] != "estimate"]
        yield from _decision_problems(attacks)
        for certificate in certificates:
            for attack in attacks:
                yield from _proof_problems(certificate, attack)
        for mix in (p for p in found if p.kind == "mix"):
            for attack in attacks:
                yield from _mix_problems(mix, attack)


def _label_problems(parts: Sequence[Part]) -> Iterator[str]:
    known: dict[tuple[str, str, int], int] = {}
    described: dict[str, str] = {}
    for part in parts:
        data, split = str(part.facts["dataset"]), str(part.facts["split"])
        form = content_hash([part.facts["classes"], part.facts["shape"]])
        if described.setdefault(data, form) != form:
            yield f"records disagree about the classes or the shape of {data}"
        if part.kind == "diagnosis":
            continue
        rows = zip(part.table.column("id").to_pylist(), part.table.column("label").to_pylist(), strict=True)
        two = [i for i, label in rows if known.setdefault((data, split, i), label) != label]
        if two:
            yield f"{samples(two)}: two labels in the records of {data}, {split}"
    if len(described) > 1:
        yield f"records are about several data sets: {', '.join(described)}"


def _twice_problems(parts: Iterable[Part]) -> Iterator[str]:
    known: set[str] = set()
    for part in parts:
        unit = {k: v for k, v in part.unit.items() if k != "data"}
        name = content_hash({"kind": part.kind, "unit": unit})
        if name in known:
            yield f"{part.unit['method']['name']}: one evaluation is there twice, with different facts"
        known.add(name)


def _stage_problems(parts: Sequence[Part]) -> Iterator[str]:
    suites: dict[str, dict[int, Part]] = defaultdict(dict)
    for part in parts:
        shared = {k: v for k, v in part.unit.items() if k not in ("data", "method", "stage", "revisions")}
        suites[content_hash([shared, part.facts["split"]])][part.unit["stage"]] = part
    for stages in suites.values():
        suite = next(iter(stages.values())).unit["suite"]
        yield from _sequence_problems(suite, stages)


def _sequence_problems(suite: Mapping[str, Any], stages: Mapping[int, Part]) -> Iterator[str]:
    """Whether each stage of one suite was run on the survivors of the stage before, as long as there were any."""
    names = _sequence(core(suite))
    late = [n for n in stages if not 0 <= n < len(names)]
    if late or 0 not in stages:
        yield f"{suite['name']}: it has no stage {late[0]}" if late else f"{suite['name']}: its first stage is missing"
        return
    left: set[int] = set(stages[0].table.column("id").to_pylist())
    for number, name in enumerate(names):
        here = f"{suite['name']}, stage {number}"
        found = set(stages[number].table.column("id").to_pylist()) if number in stages else set()
        if number not in stages and _settled(core(suite), stages, number):
            return
        if found != left:
            yield f"{here}: {samples(sorted(found ^ left))}: its images are not the survivors of the stage before"
        if number not in stages:
            continue
        part = stages[number]
        if (found_name := core(part.unit["method"])["name"]) != name:
            yield f"{here}: {found_name}, where the sequence has {name}"
        rows = zip(part.table.column("id").to_pylist(), part.table.column("success").to_pylist(), strict=True)
        left = {i for i, success in rows if not success}


def _sequence(suite: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods of the stages of AutoAttack or of a sweep."""
    if suite["name"] == SWEEP:
        return ("eot",) * (A_ROUND * len(suite["draws"]))
    own = tuple(str(a["name"]) for a in suite.get("attacks", ()))
    return (own if suite["version"] == "custom" else STAGES[suite["version"]]) + ("apgd", "apgd") * len(suite["losses"])


def _settled(suite: Mapping[str, Any], stages: Mapping[int, Part], number: int) -> bool:
    """Whether a sweep ends before this stage: no image fell in a round with enough draws, and no stage came later."""
    if suite["name"] != SWEEP or number % A_ROUND or any(n > number for n in stages):
        return False
    before = [stages[n] for n in range(number - A_ROUND, number)]
    columns = [[part.table.column(n).to_numpy() for n in ("success", "clean_prediction", "label")] for part in before]
    quiet = not any((success & (said == label)).any() for success, said, label in columns)
    return quiet and suite["draws"][number // A_ROUND - 1] >= suite["least"]


def _decision_problems(attacks: Sequence[Part]) -> Iterator[str]:
    """Whether decisions and probabilities at the image are the same in all attacks on a model that is not random."""
    for one, other in combinations([p for p in attacks if not p.facts["stochastic"]], 2):
        if decides_itself(one) and one.unit["seed"] != other.unit["seed"]:
            continue
        (a, b), ids = _common(one, other)
        decided = a.column("clean_prediction", ids), b.column("clean_prediction", ids)
        first, second = a.table("clean_probabilities", ids), b.table("clean_probabilities", ids)
        wrong = decided[0] != decided[1]
        if not decides_itself(one):  # where two classes tie, the last bit decides
            wrong &= abs(np.sort(first, 1)[:, -1] - np.sort(first, 1)[:, -2]) > ROUNDING
            wrong |= abs(first - second).max(1, initial=0.0) > ROUNDING
        if wrong.any():
            yield f"{samples(ids[wrong])}: two attacks disagree about the model's answer at the image"


def _proof_problems(certificate: Part, attack: Part) -> Iterator[str]:
    (proof, found), ids = _common(certificate, attack)
    predicted, radius = proof.column("prediction", ids), proof.column("radius", ids)
    decided, label = found.column("clean_prediction", ids), found.column("label", ids)
    held = (predicted >= 0) & (radius > 0.0)
    random = certificate.facts["proof"] == "probabilistic" or bool(attack.facts["stochastic"])
    wrong = held & (decided >= 0) & (decided != predicted)
    if attack.unit["threat"]["name"] == certificate.facts["norm"]:
        inside = np.minimum(found.column("distance", ids), found.column("nearest", ids)) < radius
        broken = found.column("success", ids).astype(bool) & (decided == label) & (predicted == label) & inside
        wrong |= held & broken
    allowed = 0
    if random:  # each certificate, and each vote, may fail
        chance = float(certificate.facts["failure_probability"]) + 1e-3
        allowed = int(stats.binom.isf(CHANCE, max(1, int(held.sum())), min(1.0, chance)))
    if int(wrong.sum()) > allowed:
        yield (
            f"{samples(ids[wrong])}: {attack.unit['method']['name']} in {attack.unit['threat']['name']} contradicts "
            f"the certificate {certificate.unit['method']['name']}"
        )
    evidence = [json.loads(e) for e in proof.values("evidence", ids)]
    if evidence and "logits" in evidence[0] and "mix_alpha" not in certificate.facts["shared"] and not random:
        said = special.softmax(np.asarray([e["logits"] for e in evidence], dtype=np.float64), axis=1)
        far = held & (abs(said - found.table("clean_probabilities", ids)).max(1) > LOGITS)
        if far.any():
            yield f"{samples(ids[far])}: the certificate's logits are not those that the attack met at the image"


def _mix_problems(mix: Part, attack: Part) -> Iterator[str]:
    if attack.facts["stochastic"]:
        return
    (path, found), ids = _common(mix, attack)
    alpha = float(mix.facts["alpha"])
    g, h = (special.softmax(path.table(f"{n}_logits", ids), axis=1) for n in ("accurate", "robust"))
    mixed = (1.0 - alpha) * g + alpha * h
    far = abs(mixed - found.table("clean_probabilities", ids)).max(1, initial=0.0) > LOGITS
    low, high = path.column("alpha_low", ids), path.column("alpha_high", ids)
    clear = ~((abs(low - alpha) < NEAR) | (abs(high - alpha) < NEAR))
    right = (low < alpha) & (alpha < high)
    far |= clear & (right != (found.column("clean_prediction", ids) == found.column("label", ids)))
    if far.any():
        yield f"{samples(ids[far])}: the logits of the mix are not those that the attack met at the image"


class _Rows:
    """The rows of a part by id."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.places = {int(i): n for n, i in enumerate(part.table.column("id").to_pylist())}

    def values(self, name: str, ids: Iterable[int]) -> list[Any]:
        column = self.part.table.column(name).to_pylist()
        return [column[self.places[int(i)]] for i in ids]

    def column(self, name: str, ids: Iterable[int]) -> np.ndarray:
        return np.asarray([np.nan if v is None else v for v in self.values(name, ids)])

    def table(self, name: str, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        width = len(self.part.facts["classes"])
        return np.asarray(self.values(name, ids), dtype=np.float64).reshape(len(ids), width)


def _common(one: Part, other: Part) -> tuple[tuple[_Rows, _Rows], np.ndarray]:
    """Both parts by id, and the ids that they share."""
    rows = _Rows(one), _Rows(other)
    return rows, np.asarray(sorted(rows[0].places.keys() & rows[1].places.keys()), dtype=np.int64)
