"""The rules for rows of every kind: each id once, and a label and predictions among the classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hauberk.records import SCHEMAS, Part
from hauberk.verify.verdict import samples

PREDICTIONS = {
    "attack": ("clean_prediction", "prediction"),
    "certificate": ("prediction",),
    "mix": ("accurate_prediction", "robust_prediction"),
}


def row_problems(part: Part) -> Iterator[str]:
    """The problems of columns, ids, labels and predictions of one part.

    A part that breaks these rules is not checked further, because the later checks rely on them.
    """
    if not part.table.schema.equals(SCHEMAS[part.kind]):
        yield f"its columns are not those of a record of kind {part.kind}"
        return
    if part.table.num_rows == 0:
        yield "it has no rows"
        return
    yield from _id_problems(part)
    if part.kind != "diagnosis":
        yield from _class_problems(part, len(part.facts["classes"]))


def _id_problems(part: Part) -> Iterator[str]:
    found = part.table.column("id").to_pylist()
    if any(i is None or i < 0 for i in found):
        yield "an id is missing or negative"
        return
    ids = np.asarray(found)
    twice = np.unique(ids[1:][ids[1:] == ids[:-1]])
    if len(twice):
        yield f"{samples(twice)}: more than one row"
    elif bool((ids[1:] < ids[:-1]).any()):
        yield "its rows are not in the order of their ids"


def _class_problems(part: Part, classes: int) -> Iterator[str]:
    ids = part.table.column("id").to_pylist()
    allowed = {"label": 0} | dict.fromkeys(PREDICTIONS[part.kind], -1)  # -1 is no decision
    for name, least in allowed.items():
        values = part.table.column(name).to_pylist()
        wrong = [i for i, v in zip(ids, values, strict=True) if v is None or not least <= v < classes]
        if wrong:
            yield f"{samples(wrong)}: {name.replace('_', ' ')} is missing or none of the {classes} classes"
