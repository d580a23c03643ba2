"""The alpha path of a mix: intervals, certified weights, and the certificates at its own alpha."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import special

from hauberk.records import Part
from hauberk.verify.derive import kept_margin
from hauberk.verify.proofs import SLACK
from hauberk.verify.verdict import Verdict

# Recorded logits are float32: this close to an end of an interval, or to a tie, they decide nothing.
NEAR, FLAT = 1e-4, 1e-6


def verify_mix(mix: Part, certificates: list[Part]) -> Verdict:
    """Derive the alpha path of a mix again, and compare it with the certificates made at its chosen alpha."""
    problems: list[str] = []
    shared = mix.facts["shared"]
    for row in mix.table.to_pylist():
        problems += _path_problems(row)
        if not mix.facts["eps"]:
            continue
        evidence = json.loads(row["evidence"])
        for eps, recorded in zip(mix.facts["eps"], row["certified_alpha"], strict=True):
            top, kept = kept_margin(evidence, shared, float(eps))
            derived = 1.0 / (1.0 + kept) if top == row["label"] and kept > 0.0 else None
            if recorded is not None and (derived is None or recorded < derived * (1.0 - SLACK)):
                problems.append(f"sample {row['id']}: certified at {eps} from alpha {recorded}, not {derived}")
    # other bounds are smaller, estimates prove nothing, and another norm is another question
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
                    problems.append(f"sample {row['id']}: the alpha path claims radius {eps}, the certificate does not")
    return Verdict(str(mix.unit["predictor"]), "alpha path", mix.table.num_rows, tuple(problems))


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
