"""Records: atomic, keyed, merged as sets."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hauberk import records
from hauberk.batch import Batch
from hauberk.errors import HauberkError

UNIT = {"predictor": "p", "data": "d", "method": {"name": "lipschitz"}}


def certificate(ids: list[int], radius: float = 0.5, data: str = "d") -> records.Part:
    columns = {
        "id": ids,
        "label": [0] * len(ids),
        "prediction": [0] * len(ids),
        "radius": [radius] * len(ids),
        "evidence": ["{}"] * len(ids),
    }
    return records.part("certificate", UNIT | {"data": data}, {"norm": "l2"}, columns)


def test_a_part_reads_back_as_written(tmp_path: Path) -> None:
    item = certificate([3, 1, 2])
    path = records.write(tmp_path, item)
    back = records.read(path)
    assert back.table.equals(item.table)
    assert (back.unit, back.facts, back.key) == (item.unit, item.facts, item.key)
    assert back.column("id").tolist() == [1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == [f"certificate-{item.key}.parquet"]


def test_absent_columns_and_nan_are_null() -> None:
    columns = {"id": [1], "label": [0], "alpha_low": [np.nan], "certified_alpha": [[0.5, np.nan]]}
    item = records.part("mix", UNIT, {}, columns)
    row = item.table.to_pylist()[0]
    assert row["alpha_low"] is None
    assert row["accurate_prediction"] is None
    assert item.table.equals(records.part("mix", UNIT, {}, columns).table)


def test_writing_the_same_unit_twice_keeps_one_and_a_different_one_is_an_error(tmp_path: Path) -> None:
    records.write(tmp_path, certificate([1]))
    records.write(tmp_path, certificate([1]))
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(HauberkError, match="different rows"):
        records.write(tmp_path, certificate([1], radius=0.6))


def test_merge_is_the_set_union_and_refuses_a_contradiction() -> None:
    first, second = certificate([1], data="a"), certificate([2], data="b")
    assert len(records.merge([first, second, first])) == 2
    with pytest.raises(HauberkError, match="different rows"):
        records.merge([first, certificate([1], radius=0.9, data="a")])


def test_group_joins_units_that_differ_in_data_alone_and_refuses_a_sample_twice() -> None:
    joined = records.group([certificate([2], data="b"), certificate([1], data="a")])
    assert [part.column("id").tolist() for part in joined] == [[1, 2]]
    with pytest.raises(HauberkError, match="two rows"):
        records.group([certificate([1], data="a"), certificate([1], radius=0.6, data="b")])


def test_a_sample_that_stands_twice_with_the_same_row_counts_once() -> None:
    (joined,) = records.group([certificate([1, 2], data="a"), certificate([2, 3], data="b")])
    assert joined.column("id").tolist() == [1, 2, 3]


def test_the_same_rows_with_other_facts_contradict() -> None:
    one = certificate([1])
    other = records.Part(one.kind, one.unit, {"norm": "linf"}, one.table)
    with pytest.raises(HauberkError, match="different rows"):
        records.merge([one, other])


def test_a_foreign_a_truncated_and_a_renamed_file_are_refused(tmp_path: Path) -> None:
    path = records.write(tmp_path, certificate([1]))
    foreign = tmp_path / "certificate-0.parquet"
    pq.write_table(certificate([1]).table, foreign)
    with pytest.raises(HauberkError, match="not a Hauberk record"):
        records.read(foreign)
    cut = tmp_path / f"cut-{path.name}"
    cut.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HauberkError, match="not a Hauberk record"):
        records.read(cut)
    renamed = path.rename(tmp_path / "certificate-ffff.parquet")
    with pytest.raises(HauberkError, match="name does not match"):
        records.read(renamed)


def test_the_key_depends_on_every_part_of_the_unit() -> None:
    base = {"weights": "w", "seed": 0, "tile": 64, "threat": {"name": "linf", "eps": 0.1}}
    keys = {records.unit_key("attack", base), records.unit_key("certificate", base)}
    for change in ({"weights": "v"}, {"seed": 1}, {"tile": 32}, {"threat": {"name": "linf", "eps": 0.2}}):
        keys.add(records.unit_key("attack", base | change))
    assert len(keys) == 6
    assert records.unit_key("attack", dict(reversed(base.items()))) == records.unit_key("attack", base)


def test_the_data_hash_does_not_depend_on_order_but_on_every_pixel() -> None:
    images = torch.rand(4, 1, 3, 3)
    batch = Batch(images, torch.arange(4), torch.tensor([5, 2, 9, 4]))
    flipped = batch.select(torch.tensor([3, 2, 1, 0]))
    assert records.data_hash(batch) == records.data_hash(flipped)
    images = images.clone()
    images[2, 0, 1, 1] += 1e-6
    assert records.data_hash(Batch(images, batch.labels, batch.ids)) != records.data_hash(batch)


def test_units_are_plain_json() -> None:
    assert json.loads(json.dumps(dict(certificate([1]).unit))) == certificate([1]).unit
