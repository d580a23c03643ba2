"""A budget of time: it may end at any moment, what is done stays, and the same call gives what one without it gives."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from hauberk.certificates import LipschitzCertificate, SmoothingCertificate
from hauberk.conformance import LinearOracle
from hauberk.evaluation.budget import Budget, OutOfTimeError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.executors import Executor, Inline, Processes
from hauberk.noises import Gaussian
from hauberk.records import Part, group, merge, read_all, write
from hauberk.verify.polls import poll_problems
from hauberk.verify.proofs import verify_part

MODEL = LinearOracle.random((1, 3, 3), num_classes=4, seed=1)
BATCH = LinearOracle.random((1, 3, 3), num_classes=4, seed=3).batch(12)


class Counted(Budget):
    """A budget of so many questions whether it is over."""

    def __init__(self, questions: int) -> None:
        super().__init__(3600.0)
        self.left = questions

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OutOfTimeError


def smoothing(rule: str, n: int = 300, **other: Any) -> SmoothingCertificate:
    """Four images take 12 calls of the model for n0 votes, 128 for each of the next two blocks, and 44 for the last."""
    return SmoothingCertificate(Gaussian(0.1), n0=10, n=n, alpha=0.01, rule=rule, **other)  # type: ignore[arg-type]


def certified(
    folder: Path, certificate: Any, budget: Budget | None = None, executor: Executor = Inline(),
    model: nn.Module = MODEL,
) -> list[Part]:
    setting = Setting("toy", "test", tuple("abcd"), tile=4)
    return certificate_records(model, BATCH, certificate, setting, Work(folder, executor=executor, budget=budget))


def evidence(parts: list[Part]) -> dict[int, dict[str, Any]]:
    return {row["id"]: json.loads(row["evidence"]) for part in parts for row in part.table.to_pylist()}


def problems(folder: Path) -> list[str]:
    kinds = ("certificate", "fingerprint", "votes", "plan")
    return list(poll_problems([p for kind in kinds for p in read_all(folder, kind)]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "more"), [("randomised", {}), ("looks", {}), ("anytime", {"goal": 0.03})]
)
def test_any_number_of_stops_end_where_one_call_ends(tmp_path: Path, rule: str, more: dict[str, Any]) -> None:
    votes = smoothing(rule, **more)
    whole = certified(tmp_path / "whole", votes)
    known: dict[int, int] = {}
    stops = 0
    while True:
        budget = Counted(250)
        found = certified(tmp_path / "parts", votes, budget)
        assert problems(tmp_path / "parts") == []
        assert all(verify_part(p).problems == () for p in found)
        drawn = {i: row.get("drawn", 300) for i, row in evidence(found).items()}
        assert all(drawn[i] >= n for i, n in known.items())  # what was concluded stays
        assert sorted(drawn) == BATCH.ids.tolist()[: len(drawn)]  # the first images, whatever was seen of them
        assert len(drawn) % 4 == 0
        if rule in ("fixed", "randomised"):
            assert set(drawn.values()) <= {300}
        known = drawn
        if not budget.spent:
            break
        stops += 1
    assert stops >= 2
    (one,), (other,) = group(whole), group(found)
    assert one.table.equals(other.table)
    assert one.facts == other.facts
    assert one.facts["proof"] == "probabilistic"


def test_bounds_for_fewer_votes_come_for_all_images_before_more_votes(tmp_path: Path) -> None:
    votes = smoothing("anytime")
    drawn: list[set[int]] = []
    for questions in (300, 600, 900):
        found = certified(tmp_path / str(questions), votes, Counted(questions))
        rows = evidence(found)
        drawn.append({row.get("drawn", 300) for row in rows.values()})
        assert len(rows) == (8 if questions == 300 else 12)
    assert drawn == [{128}, {128, 256}, {256, 300}]
    deep = evidence(certified(tmp_path / "fixed", smoothing("fixed"), Counted(600)))
    assert len(deep) == 4


def test_by_looks_votes_beyond_the_last_look_are_not_judged(tmp_path: Path) -> None:
    votes = smoothing("looks", 600, looks=(256, 600))
    found = evidence(certified(tmp_path, votes, Counted(1100)))
    assert max(read.column("stop").max() for read in read_all(tmp_path, "votes")) == 512
    assert [row["drawn"] for row in found.values()] == [256] * 12
    assert all(sum(row["counts"]) <= 256 for row in found.values())


def test_a_proof_without_votes_stops_between_units(tmp_path: Path) -> None:
    budget = Counted(2)
    found = certified(tmp_path, LipschitzCertificate(), budget, model=MODEL.layers)
    assert budget.spent
    assert sorted(evidence(found)) == [0, 1, 2, 3, 4, 5, 6, 7]


class Slow(nn.Module):
    """It sleeps at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MODEL.layers

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(0.02)
        return self.net(images)


@pytest.mark.parametrize("executor", [Inline(), Processes(workers=2)], ids=str)
def test_time_ends_in_the_middle_of_a_unit(tmp_path: Path, executor: Executor) -> None:
    votes = SmoothingCertificate(Gaussian(0.1), n0=10, n=10_000, alpha=0.01, rule="anytime")
    started, budget = time.monotonic(), Budget(1.0)
    certified(tmp_path, votes, budget, executor, Slow().eval())
    assert budget.spent
    assert time.monotonic() - started < 20.0  # all of it would take ten minutes
    assert problems(tmp_path) == []


def test_more_votes_supersede_fewer_and_nothing_else_does(tmp_path: Path) -> None:
    (few, *_) = certified(tmp_path / "few", smoothing("anytime"), Counted(300))
    (more, *_) = certified(tmp_path / "more", smoothing("anytime"))
    assert few.key == more.key
    for parts in ([few, more], [more, few]):
        assert merge(parts) == [more]
        for item in parts:
            write(tmp_path, item)
        assert evidence(read_all(tmp_path, "certificate")) == evidence([more])
    other = Part(more.kind, more.unit, more.facts, more.table.set_column(
        3, "radius", [[r + 1.0 for r in more.table.column("radius").to_pylist()]]))  # fmt: skip
    for pair in ([more, other], [other, more]):
        with pytest.raises(Exception, match="different rows"):
            merge(pair)
