"""Comparisons of records with the data that they are about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import get_args

import numpy as np
import torch

from hauberk.data import Dataset
from hauberk.data.choice import Choice, chosen
from hauberk.data.split import Split
from hauberk.errors import HauberkError
from hauberk.evaluation.units import UNIT_TILES
from hauberk.records import Part, content_hash, data_hash
from hauberk.verify import Verdict, claims
from hauberk.verify.verdict import guarded, samples


def data_verdicts(
    parts: Sequence[Part], dataset: Dataset, units: Sequence[Part] = (), whole: bool = False
) -> list[Verdict]:
    """One verdict: whether ids, labels, classes and images of all records are those of the data.

    Args:
        parts: evaluations.
        dataset: the data that they are about.
        units: the records as they are on disk, whose hashes of the data are computed again.
        whole: whether these are single units, as in a run, and not joined, as in a bundle.
    """
    known = [p for p in parts if p.kind != "diagnosis"]
    problems = [problem for part in known for problem in guarded(data_problems, part, dataset)]
    rows = sum(p.table.num_rows for p in known)
    trusted = []
    if not problems:
        other = [p for p in units if p.kind != "diagnosis" and not hashed(p, dataset)]
        problems += [f"{p.unit['method']['name']}: the data has another hash than {p.unit['data']}"
                     for p in other if whole]  # fmt: skip
        trusted += [f"{claims.IMAGES} ({p.unit['method']['name']})" for p in other if not whole]
    checked = (claims.LABELS, claims.SELECTION)
    return [Verdict("", f"data: {dataset.name}", rows, tuple(problems), checked, tuple(trusted))]


def hashed(part: Part, dataset: Dataset) -> bool:
    """Whether the hash of the images that a record names is that of the data; joined units are split again."""
    split = split_of(dataset, str(part.facts["split"]))
    own = part.column("id")
    if _hash(split, own) == part.unit["data"]:
        return True
    size = int(part.unit["tile"]) * (UNIT_TILES if part.kind == "attack" else 1)
    order = taken(part, split, len(own))
    units = [order[start : start + size] for start in range(0, len(order), size)]
    return bool(content_hash(sorted(_hash(split, unit) for unit in units)) == part.unit["data"])


def _hash(split: Split, ids: np.ndarray) -> str:
    return data_hash(split.select(torch.isin(split.ids, torch.as_tensor(ids.copy()))))


def data_problems(part: Part, dataset: Dataset) -> Iterator[str]:
    """Whether one part's ids, labels, classes and kept images are those of the data."""
    facts, method = part.facts, part.unit["method"]["name"]
    told = (facts["dataset"], tuple(facts["classes"]), tuple(facts["shape"]))
    here = (dataset.name, tuple(dataset.classes), tuple(dataset.input_shape))
    if told != here:
        yield f"{method}: it is about {told[0]} with {len(told[1])} classes of shape {told[2]}, the data is {here[0]}"
        return
    held = None if dataset.calibration is None else asdict(dataset.calibration)
    if facts.get("calibration") != held:
        yield f"{method}: it names the calibration part {facts.get('calibration')}, that of the data is {held}"
    split = split_of(dataset, str(facts["split"]))
    ids = part.column("id")
    places = {int(i): n for n, i in enumerate(split.ids.tolist())}
    invented = [i for i in ids.tolist() if i not in places]
    if invented:
        yield f"{method}: {samples(invented)}: not in the {split.name} split"
        return
    order = np.asarray([places[i] for i in ids.tolist()], dtype=np.int64)
    wrong = part.column("label") != split.labels.numpy()[order]
    if wrong.any():
        yield f"{method}: {samples(ids[wrong])}: the data has another label"
    if part.unit.get("stage", 0) == 0 and not selected(part, split):
        yield f"{method}: its {len(ids)} samples are not those that a selection of {len(ids)} images takes"
    if part.kind == "attack":
        yield from _image_problems(part, split, order)


def selected(part: Part, split: Split) -> bool:
    """Whether the ids are those that the rule named by the records chooses for this number of images."""
    return set(taken(part, split, part.table.num_rows).tolist()) == set(part.column("id").tolist())


def taken(part: Part, split: Split, images: int) -> np.ndarray:
    """The ids of a number of chosen images, in the order in which they were split into units."""
    rule = part.facts.get("choice", "first")  # for records from before there was a choice
    if rule not in get_args(Choice):
        raise HauberkError(
            f"{rule!r} is not a rule for choosing images", "it is one of: " + ", ".join(get_args(Choice))
        )
    return np.asarray(split.ids[chosen(split.ids, split.labels, images, rule)])


def split_of(dataset: Dataset, name: str) -> Split:
    """A split by its name."""
    return {"train": dataset.train, "val": dataset.val, "test": dataset.test}[name]


def _image_problems(part: Part, split: Split, order: np.ndarray) -> Iterator[str]:
    pictures = part.table.column("image").to_pylist()
    kept = [n for n, picture in enumerate(pictures) if picture is not None]
    if not kept:
        return
    images = split.select(torch.as_tensor(order[kept])).batch().images
    ids = part.column("id")
    other = [ids[n] for n, image in zip(kept, images, strict=True) if image.numpy().tobytes() != pictures[n]]
    if other:
        yield f"{part.unit['method']['name']}: {samples(other)}: the kept image is not that of the data"
