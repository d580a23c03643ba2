"""The alpha path of a mix: intervals, certified weights, and the certificates at its own alpha."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from hauberk.records import Part
from hauberk.verify.derive import kept_margins
from hauberk.verify.proofs import SLACK, evidence_problems
from hauberk.verify.verdict import Verdict, guarded

# Recorded logits are float32: this close to an end of an interval, or to a tie, they decide nothing.
NEAR, FLAT = 1e-4, 1e-6


def verify_mix(mix: Part, certificates: list[Part]) -> Verdict:
    """Derive the alpha path of a mix again, and compare it with the certificates made at its chosen alpha."""
    problems = tuple(guarded(path_problems, mix, certificates))
    return Verdict(str(mix.unit["predictor"]), "alpha path", mix.table.num_rows, problems)


def path_problems(mix: Part, certificates: Sequence[Part]) -> Iterator[str]:
    """All claims in the path of a mix that do not follow from its logits and evidence, or contradict a certificate."""
    shared, classes = dict(mix.facts["shared"]), len(mix.facts["classes"])
    if mix.facts["eps"]:
        shared["pairwise"] = np.asarray(shared["pairwise"], dtype=np.float64)  # read once, used for every radius
    for row in mix.table.to_pylist():
        yield from _logit_problems(row, classes)
        yield from _path_problems(row)
        if len(row["certified_alpha"]) != len(mix.facts["eps"]):
            yield f"sample {row['id']}: {len(row['certified_alpha'])} weights for {len(mix.facts['eps'])} radii"
        if not mix.facts["eps"]:
            continue
        evidence = json.loads(row["evidence"])
        yield from evidence_problems(row["id"], evidence, classes)
        yield from _scale_problems(row, evidence)
        top, margins = kept_margins(evidence, shared, mix.facts["eps"])
        for eps, recorded, kept in zip(mix.facts["eps"], row["certified_alpha"], margins, strict=True):
            derived = 1.0 / (1.0 + kept) if top == row["label"] and kept > 0.0 else None
            if recorded is None:
                continue
            if derived is None or not derived * (1.0 - SLACK) <= recorded <= 1.0:
                yield f"sample {row['id']}: certified at {eps} from alpha {recorded}, not {derived}"
    yield from _certificate_problems(mix, certificates)


def _logit_problems(row: Mapping[str, Any], classes: int) -> Iterator[str]:
    """Whether there is one logit for each class, and the largest of finite logits is the prediction's."""
    for name in ("accurate", "robust"):
        logits = np.asarray(row[f"{name}_logits"], dtype=np.float64)
        if logits.shape != (classes,):
            yield f"sample {row['id']}: {logits.size} {name} logits for {classes} classes"
        elif np.isfinite(logits).all() and logits[row[f"{name}_prediction"]] < logits.max():
            yield f"sample {row['id']}: the {name} model's largest logit is not its prediction"


def _scale_problems(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> Iterator[str]:
    """Whether the robust model's logits agree with the evidence; if float32 and float64 differ, a row has no proof."""
    if any(a is not None and np.isfinite(a) for a in row["certified_alpha"]):
        one, other = (special.softmax(np.asarray(z, dtype=float)) for z in (row["robust_logits"], evidence["logits"]))
        if abs(one - other).max() > NEAR * 10.0:
            yield f"sample {row['id']}: the robust model's logits are not those of its evidence"


def _certificate_problems(mix: Part, certificates: Sequence[Part]) -> Iterator[str]:
    """Whether the path and the certificates at the mix's own alpha agree."""
    # other bounds are smaller, estimates prove nothing, and radii in another norm cannot be compared
    matching = [
        c for c in certificates
        if (c.unit["predictor"], c.facts["norm"]) == (mix.unit["predictor"], mix.facts["norm"])
        and c.facts["proof"] != "estimate" and c.unit["method"].get("bound", "exact") == "exact"
    ]
    for part in matching:
        known = {r["id"]: r for r in part.table.to_pylist()}
        for row in mix.table.to_pylist():
            other = known.get(row["id"])
            if other is None:
                continue
            for eps, alpha in zip(mix.facts["eps"], row["certified_alpha"], strict=True):
                says = alpha is not None and alpha < mix.facts["alpha"] * (1 - SLACK)
                proved = other["radius"] * (1.0 + SLACK) >= eps and other["prediction"] == row["label"]
                if says and not proved:
                    yield f"sample {row['id']}: the alpha path claims radius {eps}, the certificate does not"


def _path_problems(row: Mapping[str, Any]) -> list[str]:
    """Whether the mix of the recorded logits is right just inside the recorded interval and wrong just outside."""
    accurate, robust = (special.softmax(np.asarray(row[f"{n}_logits"], dtype=float)) for n in ("accurate", "robust"))
    low, high = (np.nan if row[f"alpha_{end}"] is None else float(row[f"alpha_{end}"]) for end in ("low", "high"))
    found = []
    ends = [end + side * NEAR for end in (low, high) for side in (-1.0, 1.0)]
    for alpha in (a for a in (0.0, 0.5, 1.0, *ends) if 0.0 <= a <= 1.0):
        mixed = (1.0 - alpha) * accurate + alpha * robust
        lead = mixed[row["label"]] - np.delete(mixed, row["label"]).max()
        if abs(lead) > FLAT and (lead > 0.0) != bool(low < alpha < high):
            found.append(f"sample {row['id']}: at alpha {alpha:.6f} its logits contradict the recorded interval")
    return found
