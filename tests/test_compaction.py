"""Records in few files: the same rows whatever is joined when, and however often it is killed."""

import itertools
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hauberk import compaction, records
from hauberk.attacks import FGSM, PGD, AutoAttack
from hauberk.batch import Batch
from hauberk.certificates import SmoothingCertificate
from hauberk.compaction import Store, write_joined
from hauberk.conformance import LinearOracle
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records, certificate_records
from hauberk.evaluation.work import Work
from hauberk.executors import Executor, Inline, Processes
from hauberk.noises import Gaussian
from hauberk.records import Part, RecordKind, group, merge, read_all, read_parts
from hauberk.report.bundle import write_bundle
from hauberk.runs import Run
from hauberk.threats import L2
from hauberk.verify import verify_folder

MODEL = LinearOracle.random((1, 3, 3), num_classes=4, seed=1)
IMAGES = LinearOracle.random((1, 3, 3), num_classes=4, seed=3).batch(60)
KINDS: tuple[RecordKind, ...] = ("attack", "certificate", "votes", "plan")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Files of one unit are few beyond three."""
    monkeypatch.setattr(compaction, "FEW", 3)
    return 3


def evaluated(
    folder: Path, images: Batch = IMAGES, tile: int = 4, shards: int = 1, executor: Executor = Inline(),
) -> list[Part]:
    """A suite, votes and proofs for images; what is on record of them, joined."""
    setting = Setting("toy", "test", tuple("abcd"), tile=tile, gallery=2)
    suite = AutoAttack(L2(0.05), version="custom", attacks=(FGSM(L2(0.05)), PGD(L2(0.05), steps=2)))
    for index in range(shards):
        work = Work(folder, (index, shards), executor=executor)
        attack_records(MODEL, images, suite, setting, work)
        certificate_records(MODEL, images, SmoothingCertificate(Gaussian(0.25), n0=10, n=300), setting, work)
    return on_record(folder)


def on_record(folder: Path) -> list[Part]:
    return [part for kind in KINDS for part in group(read_all(folder, kind))]


def same(found: list[Part], wanted: list[Part]) -> bool:
    """Whether rows and facts are the same; what images a unit had shows in its description."""
    one, other = (
        sorted(str((p.kind, dict(p.facts), p.unit.get("stage"), p.table.to_pylist())) for p in parts)
        for parts in (found, wanted)
    )
    return one == other


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Part]:
    """What is on record where nothing is joined."""
    folder = tmp_path_factory.mktemp("alone")
    found = evaluated(folder)
    assert len(names(folder)) > 60
    return found


# --- files ------------------------------------------------------------------------------------------------------------


def certificate(ids: list[int], radius: float = 0.5, data: str = "", drawn: int = 0, **facts: Any) -> Part:
    unit = {"predictor": "p", "data": data or str(ids[0]), "method": {"name": "lipschitz"}}
    evidence = [f'{{"drawn": {drawn}}}' if drawn else "{}"] * len(ids)
    zeros = [0] * len(ids)
    columns = {"id": ids, "label": zeros, "prediction": zeros, "radius": [radius] * len(ids), "evidence": evidence}
    return records.part("certificate", unit, facts, columns)


def test_a_joined_file_gives_back_its_parts(tmp_path: Path) -> None:
    parts = [certificate([1, 2]), certificate([7]), certificate([3, 4, 5])]
    (path,) = write_joined(tmp_path, parts)
    found = read_parts(path)
    assert [p.unit for p in found] == [parts[i].unit for i in (0, 2, 1)]
    assert [p.table for p in found] == [parts[i].table for i in (0, 2, 1)]
    assert {p.key for p in found} == {p.key for p in parts}
    with pytest.raises(HauberkError, match="holds 3 records"):
        records.read(path)
    path.rename(renamed := tmp_path / "certificate-joined-0000000000000000.parquet")
    with pytest.raises(HauberkError, match="its name does not match its content"):
        read_parts(renamed)


@pytest.mark.parametrize(
    "parts",
    [
        [], 3, [{"unit": {}, "rows": 3}], [{"unit": {"data": "a"}, "rows": 1}, {"unit": {"data": "b"}, "rows": 3}],
        [{"unit": {"data": "a"}, "rows": 4}, {"unit": {"data": "b"}, "rows": -1}],
        [{"unit": {"data": "a"}, "rows": 0}, {"unit": {"data": "b"}, "rows": 3}],
        [{"unit": {"data": "a", "seed": 1}, "rows": 1}, {"unit": {"data": "b"}, "rows": 2}], [1, 2], {"a": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_head_that_says_something_else_is_no_record(tmp_path: Path, parts: Any) -> None:
    path = tmp_path / "certificate-joined-0000000000000000.parquet"
    path.write_bytes(records.packed(certificate([1, 2, 3]), {"parts": parts}))
    with pytest.raises(HauberkError, match=r"is not a Hauberk record|expected"):
        read_parts(path)


def test_what_a_reader_would_refuse_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [certificate([number]) for number in range(10)]
    monkeypatch.setattr(compaction, "JOINED_BYTES", sum(p.table.nbytes for p in parts) // 3)
    paths = write_joined(tmp_path, parts)
    assert len(paths) == 4
    assert sorted(p.key for path in paths for p in read_parts(path)) == sorted(p.key for p in parts)
    monkeypatch.setattr(compaction, "JOINED_BYTES", 1 << 28)
    monkeypatch.setattr("hauberk.unpacking.UNPACKED_RECORDS", 500)
    monkeypatch.setattr("hauberk.unpacking.RATIO", 0)
    assert len(write_joined(tmp_path, parts)) > 1


def test_a_unit_in_two_files_counts_once_and_a_contradiction_is_an_error(tmp_path: Path) -> None:
    one, two = certificate([1]), certificate([2])
    write_joined(tmp_path, [one, two])
    records.write(tmp_path, one)
    assert [p.key for p in read_all(tmp_path)] == sorted([one.key, two.key])
    assert not [v for v in verify_folder(tmp_path) if any("different rows" in p for p in v.problems)]
    (tmp_path / records.file_name([one])).unlink()
    records.write(tmp_path, certificate([1], radius=0.7))
    with pytest.raises(HauberkError, match="different rows"):
        read_all(tmp_path)
    assert [p for v in verify_folder(tmp_path) for p in v.problems if "different rows" in p]


def test_a_joined_record_is_replaced_by_one_that_rests_on_more_votes_alone(tmp_path: Path, few: int) -> None:
    store = Store(tmp_path, "certificate")
    for number in range(5):
        store.keep(certificate([number], drawn=100))
    store.settle()
    later = Store(tmp_path, "certificate")
    later.keep(certificate([2], drawn=50))
    assert len(names(tmp_path)) == 1
    later.keep(certificate([2], radius=0.6, drawn=200))
    with pytest.raises(HauberkError, match="different rows"):
        later.keep(certificate([3], radius=0.6, drawn=100))
    assert {p.column("radius")[0] for p in read_all(tmp_path)} == {0.5, 0.6}
    for number in range(5):
        assert later.find(certificate([number]).key) is not None
    later.settle()
    assert len(names(tmp_path)) == 1
    assert [float(p.column("radius")[0]) for p in sorted(read_all(tmp_path), key=lambda p: p.unit["data"])][2] == 0.6


def test_what_another_process_joined_meanwhile_is_found(tmp_path: Path, few: int) -> None:
    parts = [certificate([number]) for number in range(10)]  # of each store four are joined, and one is alone
    first, second = Store(tmp_path, "certificate"), Store(tmp_path, "certificate")
    for part in parts[::2]:
        first.keep(part)
        second.keep(parts[parts.index(part) + 1])
    third = Store(tmp_path, "certificate")
    assert all(third.find(part.key) for part in parts)
    third.settle()
    assert len(names(tmp_path)) == 1
    for store in (first, second):  # they know nothing of it
        store.settle()
        assert len(names(tmp_path)) == 1
    assert [p.key for p in merge(read_all(tmp_path))] == sorted(p.key for p in parts)


def test_a_file_that_goes_while_it_is_read_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [certificate([number]) for number in range(3)]
    for part in parts:
        records.write(tmp_path, part)
    store, read = Store(tmp_path, "certificate"), records.read_parts

    def joined_first(path: Path) -> list[Part]:
        if path.exists() and "joined" not in path.name:
            write_joined(tmp_path, parts)
            for part in parts:
                (tmp_path / records.file_name([part])).unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(records, "read_parts", joined_first)
    assert len(read_all(tmp_path)) == 3
    for part in parts:
        records.write(tmp_path, part)
    assert store.find(parts[0].key) is not None
    for broken in tmp_path.glob("*.parquet"):
        broken.write_bytes(b"")
    with pytest.raises(HauberkError, match="is not a Hauberk record"):
        read_all(tmp_path)
    with pytest.raises(HauberkError, match="is not a Hauberk record"):
        Store(tmp_path, "certificate")


def test_joined_files_of_another_evaluation_are_left_alone(tmp_path: Path, few: int) -> None:
    for start in (0, 4):
        write_joined(tmp_path, [certificate([number], norm="l1") for number in range(start, start + 4)])
    others = set(names(tmp_path))
    store = Store(tmp_path, "certificate")
    for number in range(10, 16):
        store.keep(certificate([number]))
    store.settle()
    assert others < set(names(tmp_path))
    assert len(names(tmp_path)) == 3


def test_files_and_rewritten_units_grow_with_the_logarithm_of_units(
    tmp_path: Path, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, most = Store(tmp_path, "certificate"), 0
    rewritten: list[int] = []

    def counting(folder: Path, parts: list[Part]) -> list[Path]:
        rewritten.append(len(parts))
        return write_joined(folder, parts)

    monkeypatch.setattr(compaction, "write_joined", counting)
    for number in range(150):
        store.keep(certificate([number]))
        most = max(most, len(names(tmp_path)))
    assert most <= few + 1 + 6
    assert sum(rewritten) <= 150 * 7  # each time all: 2,800
    store.settle()
    often = len(rewritten)
    store.settle()
    assert len(rewritten) == often
    assert len(names(tmp_path)) == 1
    assert [p.unit["data"] for p in read_parts(next(tmp_path.glob("*.parquet")))] == [str(n) for n in range(150)]


# --- evaluations ------------------------------------------------------------------------------------------------------


def test_joined_units_give_the_same_rows_in_few_files(alone: list[Part], tmp_path: Path, few: int) -> None:
    assert same(evaluated(tmp_path), alone)
    assert len(names(tmp_path)) < 14
    assert not [verdict for verdict in verify_folder(tmp_path) if verdict.problems]
    assert names(tmp_path) == (evaluated(tmp_path), names(tmp_path))[1]


@pytest.mark.parametrize("executor", [Inline(), Processes(workers=2)], ids=["inline", "processes"])
@pytest.mark.parametrize("shards", [1, 4])
def test_shards_and_executors_give_the_same_rows(
    alone: list[Part], tmp_path: Path, few: int, shards: int, executor: Executor
) -> None:
    assert same(evaluated(tmp_path, shards=shards, executor=executor), alone)
    assert len(names(tmp_path)) < 14 + 8 * (shards - 1)
    assert same(evaluated(tmp_path), alone)  # one evaluation of all finds what the shards did, and joins it
    assert len(names(tmp_path)) < 14


def test_more_images_later_equal_having_asked_at_once(alone: list[Part], tmp_path: Path, few: int) -> None:
    for count in (20, 40, 60):
        found = evaluated(tmp_path, IMAGES.select(slice(count)))
    assert same(found, alone)
    assert len(names(tmp_path)) < 14


@pytest.mark.parametrize("tile", [8, 16])
def test_other_tiles_give_the_same_rows(alone: list[Part], tmp_path: Path, few: int, tile: int) -> None:
    rows = [[p.table for p in found if p.kind in ("certificate", "votes")]
            for found in (evaluated(tmp_path, tile=tile), alone)]  # fmt: skip
    assert rows[0] == rows[1]


def test_a_kill_at_random_moments_costs_no_row(alone: list[Part], tmp_path: Path, few: int) -> None:
    moments = random.Random(0)
    for number in itertools.count():
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            evaluated(tmp_path)
            os._exit(0)
        if number < 6:
            time.sleep(moments.uniform(0.02, 0.5))
            os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
    assert number < 8
    assert same(on_record(tmp_path), alone)
    evaluated(tmp_path / "again")
    assert names(tmp_path) == names(tmp_path / "again")


def test_a_bundle_is_the_same_for_joined_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bundled(name: str) -> dict[str, bytes]:
        run = Run.create(tmp_path / name, {"name": "toy", "data": {"name": "toy"}})
        evaluated(run.records)
        folder = write_bundle(run, tmp_path / f"{name} bundle")
        return {p.name: p.read_bytes() for p in (folder / "records").glob("*.parquet") if "fingerprint" not in p.name}

    single = bundled("single")
    monkeypatch.setattr(compaction, "FEW", 3)
    assert bundled("joined") == single
