"""Certificates of sampled rows, computed again from the weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hauberk import registry
from hauberk.audit.draws import draw_problems
from hauberk.audit.votes import vote_problems
from hauberk.batch import Batch
from hauberk.records import Part
from hauberk.subjects import Subject
from hauberk.verify import claims
from hauberk.verify.verdict import samples

CLOSE = 1e-6  # relative difference of float64 logits, Lipschitz constants and radii between two machines
VOTES = 1000  # fresh votes of a row at most


def certify_again(
    part: Part, target: Subject, batch: Batch, generator: np.random.Generator, trusted: list[str]
) -> Iterator[str]:
    """Compare recorded evidence with evidence that is gathered again, and votes with fresh votes."""
    recorded = {row["id"]: row for row in part.table.to_pylist()}
    evidence = {i: json.loads(recorded[i]["evidence"]) for i in batch.ids.tolist()}
    method = dict(part.unit["method"])
    if "n0" in part.facts["shared"]:  # votes, whatever the method is called
        certificate = registry.build(_shorter(method), "certificate")
        seed = int(generator.integers(2**31))
        fresh = [s.row() for s in certificate.gather(target.model, batch, seed, part.unit["tile"])]
        apart = part.facts["shared"].get("draws", "own") == "own"
        trusted += [claims.VOTES] if apart else [claims.VOTES, claims.TOGETHER_DRAWN]
        yield from vote_problems(batch.ids.tolist(), [evidence[i] for i in batch.ids.tolist()], fresh, apart)
        return
    if "draws" in part.facts["shared"]:
        yield from _drawn_again(part, target, batch, generator, [evidence[i] for i in batch.ids.tolist()])
        trusted.append(claims.DRAWS)
        return
    if part.facts["proof"] == "estimate":
        trusted.append(f"what the estimate {method['name']} saw of its points")
        return
    again = registry.build(method, "certificate")(target.model, batch, part.unit["seed"], part.unit["tile"])
    yield from shared_problems(part.facts["shared"], again.shared)
    rows = zip(batch.ids.tolist(), again.rows, again.prediction.tolist(), again.radius.tolist(), strict=True)
    for i, fresh_row, prediction, radius in rows:
        yield from logit_problems(i, evidence[i], fresh_row)
        old = recorded[i]
        if max(old["radius"], radius) > CLOSE and (
            old["prediction"] != prediction or abs(old["radius"] - radius) > CLOSE * max(1.0, radius)
        ):
            yield (f"sample {i}: recorded {old['prediction']} within {old['radius']:.9g}, "
                   f"the weights give {prediction} within {radius:.9g}")  # fmt: skip


def _drawn_again(
    part: Part, target: Subject, batch: Batch, generator: np.random.Generator, evidence: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Compare the record with fresh draws for its classes, at most ``VOTES`` of them."""
    asked = dict(part.unit["method"])
    certificate = registry.build({**asked, "n": min(int(asked["n"]), VOTES)}, "certificate")
    chosen = torch.tensor([int(np.argmax(row["first"])) for row in evidence], dtype=torch.int64)
    again = certificate.again(target.model, batch, int(generator.integers(2**31)), part.unit["tile"], chosen)
    yield from shared_problems(part.facts["shared"], again[0].shared())
    draws = int(part.facts["shared"]["draws"]), certificate.n
    yield from draw_problems(batch.ids.tolist(), evidence, [seen.row() for seen in again], draws)


def shared_problems(recorded: Mapping[str, Any], fresh: Mapping[str, Any]) -> Iterator[str]:
    """Whether the recorded Lipschitz constants are those of the weights."""
    if "pairwise" not in fresh:
        return
    old, new = (np.asarray(s["pairwise"], dtype=np.float64) for s in (recorded, fresh))
    if old.shape != new.shape or not np.allclose(old, new, rtol=CLOSE, atol=0.0):
        yield "the pairwise Lipschitz constants are not those of the weights"


def logit_problems(sample: int, recorded: Mapping[str, Any], fresh: Mapping[str, Any]) -> Iterator[str]:
    """Whether the recorded logits of a row are those of the weights."""
    if "logits" in fresh:
        old, new = (np.asarray(row["logits"], dtype=np.float64) for row in (recorded, fresh))
        if old.shape != new.shape or abs(old - new).max() > CLOSE * max(1.0, abs(new).max()):
            yield f"{samples([sample])}: the recorded logits are not those of the weights"


def _shorter(method: Mapping[str, Any]) -> dict[str, Any]:
    """The same certificate with fewer votes, which is enough to compare shares."""
    if "base" in method:
        return {**method, "base": _shorter(method["base"])}
    return {**method, "n": min(int(method["n"]), VOTES)} | ({"looks": ()} if "looks" in method else {})
