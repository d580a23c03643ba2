"""A drop on the same images: power and false alarms by simulation from records, and exact counts."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hauberk.comparison.contestant import Quantity, read
from hauberk.comparison.drop import dropped
from hauberk.errors import HauberkError
from hauberk.threats import L2

RESULTS = Path(__file__).resolve().parents[2] / "results" / "digits"
IMAGES, DRAWS = 1000, 1000


@cache
def verdict(lost: int, won: int, tolerated: float, images: int = IMAGES) -> str:
    """The verdict depends on the counts alone."""
    old = np.arange(images) < lost
    return dropped((np.arange(images) >= lost) & (np.arange(images) < lost + won), old, tolerated).verdict


@cache
def standing() -> np.ndarray:
    """Which images of a committed run stand under attack."""
    run = read([RESULTS / "lip_digits-seed0"], [L2(0.5)])[0]
    return run.outcomes[Quantity("attacked", "l2", 0.5)].counts[0]


@cache
def shares(drop: float, discordance: float, tolerated: float = 0.0) -> dict[str, float]:
    """How often each verdict comes, of pairs of runs that lose and win as many images as the two numbers say.

    The images of the old one are drawn from the record.
    """
    dice, known = np.random.default_rng(0), standing()
    lose, win = (discordance + drop) / 2.0 / known.mean(), (discordance - drop) / 2.0 / (1.0 - known.mean())
    assert 0.0 <= lose <= 1.0 and 0.0 <= win <= 1.0
    old = known[dice.integers(0, len(known), (DRAWS, IMAGES))]
    flips = dice.random((DRAWS, IMAGES), dtype=np.float32)
    lost, won = (old & (flips < lose)).sum(1).tolist(), (~old & (flips < win)).sum(1).tolist()
    found = [verdict(*counts, tolerated) for counts in zip(lost, won, strict=True)]
    return {name: found.count(name) / DRAWS for name in ("pass", "fail", "cannot tell")}


def test_a_drop_of_three_points_at_ten_percent_discordance_is_seen() -> None:
    found = shares(0.03, 0.10)
    assert found["fail"] >= 0.80
    assert found["cannot tell"] <= 0.01


@pytest.mark.parametrize("discordance", [0.02, 0.05, 0.10, 0.20])
def test_there_are_few_false_alarms_without_a_drop(discordance: float) -> None:
    assert shares(0.0, discordance)["fail"] <= 0.05


def test_a_drop_that_is_tolerated_gives_few_alarms_and_a_larger_one_is_seen() -> None:
    assert shares(0.02, 0.10, tolerated=0.02)["fail"] <= 0.06  # Tango's limit is approximate
    assert shares(0.05, 0.10, tolerated=0.02)["fail"] >= 0.80


def test_the_table_of_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "gate.md").read_text()
    rows = re.findall(r"^\| (\d+) % \| ([\d-]+)(?: %)? \| ([\d.]+) % \|$", page, re.MULTILINE)
    assert len(rows) == 4
    for discordance, power, alarms in rows:
        share = float(discordance) / 100.0
        assert round(100 * shares(0.0, share)["fail"], 1) == float(alarms)
        if power != "-":
            assert round(100 * shares(0.03, share)["fail"]) == int(power)


def test_exact_counts() -> None:
    # P(Bin(5, 1/2) >= 5) = 1/32 < 5 %, P(Bin(4, 1/2) >= 4) = 1/16
    assert verdict(5, 0, 0.0) == "fail"
    assert verdict(4, 0, 0.0) == "pass"
    assert verdict(0, 5, 0.0) == "pass"
    assert verdict(0, 0, 0.0) == "pass"
    assert verdict(60, 0, 0.05) == "pass"
    assert verdict(80, 0, 0.05) == "fail"
    assert verdict(1, 1, 0.0, images=20) == "cannot tell"


def test_nothing_shared_tells_nothing() -> None:
    assert dropped([], []).verdict == "cannot tell"


@pytest.mark.parametrize(
    ("tolerated", "unseen"), [(-0.1, 0.05), (1.0, 0.05), (0.0, 0.0), (0.0, 2.0), (float("nan"), 0.1)]
)
def test_numbers_out_of_range(tolerated: float, unseen: float) -> None:
    with pytest.raises(HauberkError, match="tolerated drop"):
        dropped([True], [True], tolerated, unseen)
