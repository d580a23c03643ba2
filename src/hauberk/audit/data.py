"""Records against the data that they speak of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
import torch

from hauberk.data import Dataset
from hauberk.data.choice import Choice, chosen
from hauberk.data.dataset import Split
from hauberk.errors import HauberkError
from hauberk.records import Part
from hauberk.verify import Verdict, claims
from hauberk.verify.verdict import guarded, samples


def data_verdicts(parts: Sequence[Part], dataset: Dataset) -> list[Verdict]:
    """One verdict: whether ids, labels, classes and kept images of all records are those of the data."""
    known = [p for p in parts if p.kind != "diagnosis"]
    problems = [problem for part in known for problem in guarded(data_problems, part, dataset)]
    rows = sum(p.table.num_rows for p in known)
    return [Verdict("", f"data: {dataset.name}", rows, tuple(problems), (claims.LABELS, claims.SELECTION))]


def data_problems(part: Part, dataset: Dataset) -> Iterator[str]:
    """Whether one part's ids, labels, classes and kept images are those of the data."""
    facts, method = part.facts, part.unit["method"]["name"]
    told = (facts["dataset"], tuple(facts["classes"]), tuple(facts["shape"]))
    here = (dataset.name, tuple(dataset.classes), tuple(dataset.input_shape))
    if told != here:
        yield f"{method}: it is about {told[0]} with {len(told[1])} classes of shape {told[2]}, the data is {here[0]}"
        return
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
    """Whether the ids are those that asking for so many images gives, by the rule that the records name."""
    return set(taken(part, split, part.table.num_rows).tolist()) == set(part.column("id").tolist())


def taken(part: Part, split: Split, images: int) -> np.ndarray:
    """The ids of so many images, in the order in which units were cut from them."""
    rule = part.facts.get("choice", "first")  # from before there was a choice
    if rule not in get_args(Choice):
        raise HauberkError(f"{rule!r} is no rule that chooses images", "it is one of: " + ", ".join(get_args(Choice)))
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
