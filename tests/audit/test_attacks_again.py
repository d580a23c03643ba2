"""Survivors that fall when attacked again: counted, or called forged."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hauberk
from hauberk import audit
from hauberk.audit.attacks import odd_problems, sign_problems
from hauberk.verify import claims, ledger


def told_as_survivors(run: Path, forger: Any, most: int) -> None:
    """Broken rows of the plain attack told as survivors, consistently; the suite is removed."""
    for path, part in forger(run).parts("attack"):
        if "suite" in part.unit:
            path.unlink()
    left = [most]

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["success"] and row["clean_prediction"] == row["label"] and left[0] > 0:
                left[0] -= 1
                row.update(success=False, prediction=row["label"], nearest=float("inf"), stopped="steps", forwards=7,
                           probabilities=row["clean_probabilities"], probability_margin=1e-3, logit_margin=1e-4,
                           image=None, adversarial=None)  # fmt: skip

    forger(run).change("attack", "apgd", rows=change)


def elsewhere(run: Path, forger: Any) -> None:
    """The same records, said to be from another machine."""
    info = forger(run).info
    forger(run).sign(environments={name: env | {"cpu": "abacus"} for name, env in info["environments"].items()})


def problems(verdicts: list[Any]) -> list[str]:
    return [p for v in verdicts for p in v.problems]


def test_one_on_the_same_machine_is_forged(rich_run: Path, forger: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(rich_run, tmp_path / "run"))
    told_as_survivors(run, forger, 1)
    assert any("another outcome" in p for p in problems(audit.audit(run, True, None, 1)))


def test_one_of_other_code_is_counted(rich_run: Path, forger: Any, tmp_path: Path) -> None:
    """The bits of another revision are its own."""
    run = Path(shutil.copytree(rich_run, tmp_path / "run"))
    told_as_survivors(run, forger, 1)
    forger(run).change("attack", "apgd", head=lambda unit, facts: unit.update(revisions={"machinery": 0}))
    verdicts = audit.audit(run, True, None, 1)
    assert problems(verdicts) == []
    assert any(claim.startswith(claims.REVISIONS) for claim in ledger(verdicts)[1])


def test_one_from_elsewhere_is_counted(rich_run: Path, forger: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(rich_run, tmp_path / "run"))
    told_as_survivors(run, forger, 1)
    elsewhere(run, forger)
    verdicts = audit.audit(run, True, None, 1)
    assert problems(verdicts) == []
    assert any(claim.startswith(claims.SURVIVORS) and "1 fall" in claim for claim in ledger(verdicts)[1])


def test_three_from_elsewhere_that_fall_in_every_search_are_forged(
    rich_run: Path, forger: Any, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(rich_run, tmp_path / "run"))
    told_as_survivors(run, forger, 3)
    elsewhere(run, forger)
    assert any("fall in each of 20 searches" in p for p in problems(audit.audit(run, True, None, 1)))


@pytest.mark.parametrize(("alone", "others", "told"), [(2, 0, False), (3, 0, True), (3, 9, False), (9, 60, False)])
def test_a_run_is_as_often_alone_as_any_other(alone: int, others: int, told: bool) -> None:
    """21 runs: three of three that are the recorded one have chance 21^-3 = 1.1e-4, two 2.3e-3."""
    assert bool(list(odd_problems(range(alone), others))) == told


@pytest.mark.parametrize(("fell", "resisted", "told"), [(14, 0, True), (13, 0, False), (20, 12, False), (60, 20, True)])
def test_many_from_elsewhere_are_no_chance(fell: int, resisted: int, told: bool) -> None:
    """Fourteen of fourteen differences on one side: 2^-14 is less than 1e-4, 2^-13 is not."""
    down, up = np.arange(100) < fell, np.arange(100) >= 100 - resisted
    assert bool(list(sign_problems(np.arange(100), down, up))) == told


def test_the_sample_is_the_verifiers(rich_run: Path) -> None:
    assert audit.draw() != audit.draw()
    picked = [np.random.default_rng(seed).choice(400, 30, replace=False).tolist() for seed in (1, 2)]
    assert picked[0] != picked[1]
    target = hauberk.subject(rich_run)
    rows = [v.rows for v in audit.recompute(target, 5, np.random.default_rng(3)) if "weights" in v.method]
    assert rows
    assert max(rows) == 5


@pytest.mark.parametrize(("forged", "rows", "least"), [(3, 299, 0.65), (10, 299, 0.95)])
def test_what_a_sample_sees(forged: int, rows: int, least: float) -> None:
    """Of 1,000 rows, 1 % forged: at least one is drawn with probability 1 - C(990, 299) / C(1000, 299)."""
    missed = np.prod([(1000 - forged - i) / (1000 - i) for i in range(rows)])
    assert 1.0 - missed > least
