"""Records of a sweep over draws: its rule ends it on all images together, it resumes, and verify knows the rule."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hauberk.attacks import EOTSweep
from hauberk.batch import Batch
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records
from hauberk.evaluation.work import Work
from hauberk.layers import NoiseInjection
from hauberk.noises import Gaussian
from hauberk.records import Part, group, part
from hauberk.threats import Linf
from hauberk.verify.attacks import attack_problems
from hauberk.verify.together import _sequence_problems, together_problems

SWEEP = EOTSweep(Linf(0.02), draws=(1, 2, 3, 4), steps=(1, 2, 2, 2), least=2, votes=5, tries=9)


def parts(folder: Path, shard: tuple[int, int] = (0, 1), rows: int = 24) -> list[Part]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(12, 8), NoiseInjection(Gaussian(0.1)), nn.Tanh(), nn.Linear(8, 3)]
        model = nn.Sequential(*layers).eval()
        images = torch.rand(rows, 3, 2, 2)
        labels = model(images).argmax(1)
    samples = Batch(images, labels, torch.arange(rows))
    setting = Setting("noise", "test", ("a", "b", "c"), tile=2, gallery=2)
    return attack_records(model, samples, SWEEP, setting, Work(folder, shard))


def by_stage(found: list[Part]) -> dict[int, Part]:
    return {int(p.unit["stage"]): p for p in group(found)}


def test_it_ends_after_the_first_quiet_round_and_its_records_hold(tmp_path: Path) -> None:
    found = parts(tmp_path)
    stages = by_stage(found)
    fell = [int((s.column("success") & (s.column("clean_prediction") == s.column("label"))).sum())
            for _, s in sorted(stages.items())]  # fmt: skip
    assert SWEEP.settled(fell)
    assert not any(SWEEP.settled(fell[:n]) for n in range(len(fell)))
    assert len(fell) < 8
    assert stages[0].column("draws")[0].shape == (9,)
    joined = group(found)
    assert list(together_problems(joined)) == []
    assert [p for part in joined for p in attack_problems(part)] == []
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert by_stage(parts(tmp_path)).keys() == stages.keys()
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_a_round_that_is_missing_is_seen(tmp_path: Path) -> None:
    joined = group(parts(tmp_path))
    last = max(int(p.unit["stage"]) for p in joined)
    for lost in (last, last - 1):
        rest = [p for p in joined if p.unit["stage"] != lost]
        assert any("survivors of the stage before" in problem for problem in together_problems(rest))
    early = [p for p in joined if p.unit["stage"] < 2]  # one draw is too few to end with
    assert any("survivors" in problem for problem in together_problems(early))


def test_votes_on_record_are_those_that_decided(tmp_path: Path) -> None:
    one = group(parts(tmp_path))[0]
    column = one.table.schema.get_field_index("draws")
    other = [[(d + 1) % 3 for d in row[:5]] + row[5:] for row in one.table.column("draws").to_pylist()]
    changed = replace(one, table=one.table.set_column(column, one.table.schema.field("draws"), [other]))
    assert any("most draws" in problem for problem in attack_problems(changed))


def test_shards_do_every_stage(tmp_path: Path) -> None:
    """A shard does not see whether images of another one fall, so that none ends early."""
    found = parts(tmp_path, (0, 2)) + parts(tmp_path, (1, 2))
    assert sorted(by_stage(found)) == list(range(8))
    assert list(together_problems(group(found))) == []


def rows(stage: int, ids: list[int], fell: list[int], suite: dict[str, Any]) -> Part:
    """One stage on record, of images that were all right before."""
    columns = {
        "id": ids, "label": [0] * len(ids), "clean_prediction": [0] * len(ids), "success": [i in fell for i in ids],
    }  # fmt: skip
    return part("attack", {"method": {"name": "eot"}, "stage": stage, "suite": suite}, {}, columns)


@pytest.mark.parametrize(
    ("draws", "fallen", "kept", "holds"),
    [
        ([5, 9], {}, [0, 1], True),  # a quiet round of draws enough
        ([5, 9], {1: [2]}, [0, 1], False),  # an image fell in its second stage
        ([5, 9], {0: [2]}, [0, 1], False),  # or in its first
        ([4, 9], {}, [0, 1], False),  # too few draws
        ([5, 9], {}, [0, 1, 3], False),  # the round after it was begun
        ([4, 9], {}, [0, 1, 2, 3], True),  # every round was done
    ],
)
def test_verify_knows_when_a_sweep_may_end(
    draws: list[int], fallen: dict[int, list[int]], kept: list[int], holds: bool
) -> None:
    suite = {"name": "eot_sweep", "draws": draws, "least": 5}
    left, stages = [1, 2, 3], {}
    for number in range(4):
        if number in kept:
            stages[number] = rows(number, left, fallen.get(number, []), suite)
        left = [i for i in left if i not in fallen.get(number, [])]
    assert (list(_sequence_problems(suite, stages)) == []) == holds
