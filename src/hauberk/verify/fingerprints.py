"""Fingerprints of a model's answers: each must match its hash, and every fingerprint that records name must exist."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

from hauberk.records import MEASURED, SCHEMAS, Part


def fingerprint_problems(parts: Sequence[Part]) -> Iterator[str]:
    """Whether the name of each fingerprint is the hash of its answers, and every record's fingerprint exists."""
    known = set()
    for part in (p for p in parts if p.kind == "fingerprint"):
        if not part.table.schema.equals(SCHEMAS["fingerprint"]):
            yield "the columns of a fingerprint are not those of its kind"
            continue
        logits = part.table.column("logits").to_pylist()
        ids = part.table.column("id").to_pylist()
        asked = [rows for _, rows in sorted(zip(ids, logits, strict=True), key=lambda row: _order(row[0]))]
        shape = [len(asked), len(asked[0])] if asked and asked[0] else [0, 0]
        said = json.dumps([shape, asked if shape[0] else [], part.facts["failure"]])
        if hashlib.sha256(said.encode()).hexdigest()[:16] != part.unit["answers"]:
            yield f"the fingerprint {part.unit['answers']} is not the hash of its answers"
        known.add(part.unit["answers"])
    named = {p.unit["answers"] for p in parts if p.kind in MEASURED and "answers" in p.unit}
    for missing in sorted(named - known):
        yield f"records name the fingerprint {missing}, which is not there"


def _order(name: int) -> tuple[bool, int]:
    """The order in which a model is asked: noise, whose ids are -1, -2 and so on, then images by id."""
    return name >= 0, abs(name)
