"""Votes: the form of their records, the counts that certificates derive from them, and the plan made before them."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hauberk.records import Part, unit_key
from hauberk.verify.derive import noise_of
from hauberk.verify.verdict import samples

FIRST = 128  # votes of the first block; each later block is as long as all blocks before it
SINCE = 2  # the first revision of the certificate whose votes are records of their own
DRAWN = ("weights", "seed", "device")
OWN = ("predictor", "method", "revisions", "data", "purpose", "start", "stop")  # of a unit, without effect on a vote

Counts = dict[int, dict[tuple[str, int, int], list[int]]]  # by sample and block


def poll_problems(parts: Sequence[Part]) -> Iterator[str]:
    """All malformed votes of a run, and all counts of certificates that do not follow from the votes and their plan."""
    plans = {part.key: part for part in parts if part.kind == "plan"}
    polls: dict[str, Counts] = defaultdict(lambda: defaultdict(dict))
    for part in (p for p in parts if p.kind == "votes"):
        yield from _block_problems(part)
        if _poll(part) not in plans:
            yield f"there are votes under {part.unit['method']['noise']}, and no plan that stands before them"
        found = polls[_circumstances(part)]
        for row in part.table.to_pylist():
            found[row["id"]][row["purpose"], row["start"], row["stop"]] = row["counts"]
    for counts in polls.values():
        yield from _prefix_problems(counts)
    for part in (p for p in parts if p.kind == "certificate"):
        if "n0" in part.facts.get("shared", {}):
            yield from _certificate_problems(part, plans, polls)


def _poll(part: Part) -> str:
    """The name of the plan that was made before these votes."""
    method = part.unit["method"]
    unit = {k: part.unit[k] for k in DRAWN if k in part.unit}
    unit |= {k: method[k] for k in ("noise", "draws") if k in method}
    return unit_key("plan", unit | {"dataset": part.facts["dataset"], "split": part.facts["split"]})


def _circumstances(part: Part) -> str:
    """The circumstances in which votes were counted, without the certificate that asked for them."""
    told = part.unit["method"] if part.kind == "votes" else part.facts["shared"]
    rest = {k: v for k, v in part.unit.items() if k not in OWN}
    noise = noise_of({"noise": told["noise"]})
    about = [rest, noise, told.get("draws", "own"), part.facts["dataset"], part.facts["split"]]
    return json.dumps(about, sort_keys=True)


def _block_problems(part: Part) -> Iterator[str]:
    """Whether every row is a valid block of votes, with no more votes than the block holds."""
    said = {name: part.unit[name] for name in ("purpose", "start", "stop") if name in part.unit}
    classes = len(part.facts["classes"])
    wrong = {r["id"] for r in part.table.to_pylist() if not _is_block(r, classes) or any(r[k] != said[k] for k in said)}
    if wrong:
        yield f"{samples(sorted(wrong))}: a block of votes is none"


def _is_block(row: Mapping[str, Any], classes: int) -> bool:
    start, stop, counts = row["start"], row["stop"], row["counts"]
    begins = start == 0 or (start % FIRST == 0 and (start // FIRST).bit_count() == 1)
    lies = row["purpose"] in ("counts0", "counts") and begins and start < stop <= max(2 * start, FIRST)
    return lies and len(counts) == classes and min(counts) >= 0 and sum(counts) <= stop - start


def _prefix_problems(counts: Counts) -> Iterator[str]:
    """Whether the votes of a shortened block are among the votes of the same block in a longer form."""
    wrong = []
    for sample, found in counts.items():
        for (purpose, start, stop), few in found.items():
            more = [v for (p, s, e), v in found.items() if (p, s) == (purpose, start) and e > stop]
            if any((np.asarray(v) < np.asarray(few)).any() for v in more):
                wrong.append(sample)
    if wrong:
        yield f"{samples(sorted(set(wrong)))}: a longer block of votes has fewer of a class than its beginning"


def _certificate_problems(part: Part, plans: Mapping[str, Part], polls: Mapping[str, Counts]) -> Iterator[str]:
    shared, name = part.facts["shared"], part.facts.get("votes")
    if name is None:
        revisions = part.unit.get("revisions", {})
        if revisions.get("SmoothingCertificate", 0) >= SINCE or "MMCert" in revisions:
            yield "a certificate names no votes"
        return
    if name not in plans:
        yield "the plan of a certificate's votes is not there"
        return
    plan = plans[name]
    of_others = [k for k in ("weights", "seed", "device") if plan.unit.get(k) != part.unit.get(k)]
    of_others += ["draws"] if plan.unit.get("draws", "own") != shared.get("draws", "own") else []
    if of_others or noise_of(plan.unit) != noise_of(shared):
        yield f"a certificate names the plan of other votes ({', '.join(of_others) or 'noise'})"
    yield from _plan_problems(part, plan)
    yield from _sum_problems(part, polls.get(_circumstances(part), {}))


def _sum_problems(part: Part, counts: Counts) -> Iterator[str]:
    """Whether the counts of a certificate are the sums of the votes on record."""
    shared, wrong, lost, lucky = part.facts["shared"], [], [], []
    for row in part.table.to_pylist():
        evidence, found = json.loads(row["evidence"]), counts.get(row["id"], {})
        if shared.get("rule") == "randomised" and evidence.get("u") != _luck(part.unit["seed"], row["id"]):
            lucky.append(row["id"])
        for purpose, total in (("counts0", shared["n0"]), ("counts", evidence.get("drawn", shared["n"]))):
            summed = _sum(found, purpose, total)
            if summed is None:
                lost.append(row["id"])
            elif summed != evidence[purpose]:
                wrong.append(row["id"])
    if lost:
        yield f"{samples(sorted(set(lost)))}: certified, and some of the votes are not on record"
    if lucky:
        yield f"{samples(sorted(lucky))}: the uniform number is not the one that follows from seed and id"
    if wrong:
        yield f"{samples(sorted(set(wrong)))}: certified from other counts than the votes on record add up to"


def _luck(seed: int, sample: int) -> float:
    """The uniform number of an image, which follows from seed and id, so that it cannot be chosen."""
    digest = hashlib.blake2b(f"{seed}|{sample}|smoothing-randomised".encode(), digest_size=16).digest()
    return 1.0 - float(np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little"))).random())


def _sum(found: Mapping[tuple[str, int, int], Sequence[int]], purpose: str, total: int) -> list[int] | None:
    """The sum of the votes of all blocks up to a number, or None if a block is missing."""
    start, summed = 0, None
    while start < total:
        stop = min(max(2 * start, FIRST), total)
        counts = found.get((purpose, start, stop))
        if counts is None:
            return None
        summed = np.asarray(counts) if summed is None else summed + np.asarray(counts)
        start = stop
    return None if summed is None else summed.tolist()


def _plan_problems(part: Part, plan: Part) -> Iterator[str]:
    """Whether a certificate that departs from the plan of its votes is marked as exploratory."""
    (first,) = plan.table.to_pylist()
    shared = part.facts["shared"]
    names = ("n0", "alpha", "rule", "rival", *(() if first["rule"] == "anytime" else ("n",)))
    asked = shared | {"rule": ":".join([shared["rule"], *map(str, shared.get("looks", ()))])}
    other = [f"{k} = {first[k]}" for k in names if first[k] != asked[k]]
    if other and "exploratory" not in part.facts:
        yield f"a certificate asks for another plan than was fixed before the votes ({', '.join(other)}): exploratory"
