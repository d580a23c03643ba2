"""The rules that bound a vote's probability: what each may fail with, when it may stop, and luck nobody chooses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hauberk.certificates import ABSTAIN, MixedCertificate, SmoothingCertificate
from hauberk.certificates.evidence import OfMix, Rule, VoteCounts, VotePlan, on_record
from hauberk.certificates.votes import luck, schedule
from hauberk.conformance import LinearOracle
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.noises import Gaussian, GridGaussian, Laplace, Noise
from hauberk.records import Part, group, part, read_all
from hauberk.verify.derive import DERIVE
from hauberk.verify.polls import poll_problems
from hauberk.verify.proofs import verify_part

MODEL = LinearOracle.random((1, 3, 3), num_classes=4, seed=1)
BATCH = LinearOracle.random((1, 3, 3), num_classes=4, seed=3).batch(8)
RULES: list[Rule] = ["fixed", "randomised", "looks", "anytime"]


def plan(rule: Rule, looks: tuple[int, ...], alpha: float) -> VotePlan:
    return VotePlan(Gaussian(1.0), 1, looks[-1], alpha, rule, "rest", looks if rule == "looks" else ())


def smoothing(**other: Any) -> SmoothingCertificate:
    return SmoothingCertificate(**({"noise": Gaussian(0.1), "n0": 10, "n": 600, "alpha": 0.01} | other))


# --- what they fail with -----------------------------------------------------------------------------------------


def ever_failing(looks: tuple[int, ...], p: float, bound: Callable[[int, int], float]) -> float:
    """The probability that some look has a bound above p, by the law of the counts that have had none."""
    alive, before = np.ones(1), 0
    for n in looks:
        alive = np.convolve(alive, stats.binom.pmf(np.arange(n - before + 1), n - before, p))
        alive[[bound(k, n) > p for k in range(n + 1)]] = 0.0
        before = n
    return 1.0 - float(alive.sum())


@pytest.mark.parametrize("looks", [(5, 12, 30, 60), (10, 20, 40, 80, 120, 160, 200)])
def test_planned_looks_ever_fail_with_at_most_alpha_by_enumeration(looks: tuple[int, ...]) -> None:
    alpha = 0.05
    split, whole = plan("looks", looks, alpha), plan("fixed", looks, alpha)
    grid = (0.05, 0.3, 0.5, 0.7, 0.9, 0.97)
    spent = [ever_failing(looks, p, lambda k, n: split.lower(k, n, alpha)) for p in grid]
    peeking = [ever_failing(looks, p, lambda k, n: whole.lower(k, n, alpha)) for p in grid]
    assert max(spent) <= alpha
    assert max(peeking) > 1.5 * alpha  # Clopper-Pearson without the split, looked at again and again


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("p", [0.55, 0.9])
def test_ten_thousand_runs_that_stop_at_the_worst_look_fail_with_at_most_alpha(rule: Rule, p: float) -> None:
    """A run stops as soon as its bound is too large, if it ever is, wherever the rule has a bound."""
    runs, alpha, draws = 10_000, 0.05, np.random.default_rng(0)
    looks = (30, 60, 120, 240)
    rules, u = plan(rule, looks, alpha), 1.0 - draws.random(runs)
    counts, failed, before = np.zeros(runs, dtype=np.int64), np.zeros(runs, dtype=bool), 0
    for n in looks:
        counts += draws.binomial(n - before, p, runs)
        before = n
        if not rules.judges(n):
            continue
        if rule == "randomised":
            edges = [rules.lower(k, n, alpha, 0.0) > p for k in range(n + 1)]
            failed |= [edges[k] and rules.lower(k, n, alpha, v) > p for k, v in zip(counts.tolist(), u, strict=True)]
        else:
            failed |= np.array([rules.lower(k, n, alpha) > p for k in range(n + 1)])[counts]
    assert failed.sum() <= stats.binom.ppf(1 - 1e-6, runs, alpha)
    if rule == "randomised":
        assert failed.sum() >= stats.binom.ppf(1e-6, runs, alpha)  # it spends all of it


# --- luck that nobody chooses --------------------------------------------------------------------------------------


def test_luck_follows_from_seed_and_image_and_is_uniform() -> None:
    drawn = [luck(3, i) for i in range(2000)]
    assert drawn == [luck(3, i) for i in range(2000)]
    assert len({*drawn, *(luck(4, i) for i in range(2000))}) == 4000
    assert min(drawn) > 0.0
    assert stats.kstest(drawn, "uniform").pvalue > 1e-4


def certified(
    folder: Path, certificate: Any, shard: tuple[int, int] = (0, 1), seed: int = 0, tile: int = 8
) -> list[Part]:
    setting = Setting("toy", "test", tuple("abcd"), tile=tile, seed=seed)
    return certificate_records(MODEL, BATCH, certificate, setting, Work(folder, shard))


def everything(folder: Path) -> list[Part]:
    return [p for kind in ("certificate", "fingerprint", "votes", "plan") for p in read_all(folder, kind)]  # type: ignore[arg-type]


def evidence(found: Part) -> list[dict[str, Any]]:
    return [json.loads(row) for row in found.table.column("evidence").to_pylist()]


def test_luck_is_the_same_on_resume_in_shards_and_in_other_tiles(tmp_path: Path) -> None:
    votes = smoothing(rule="randomised", n=200)
    (whole,) = group(certified(tmp_path / "whole", votes))
    again = group(certified(tmp_path / "whole", votes))[0]
    parts = [p for i in (0, 1) for p in certified(tmp_path / "shards", votes, (i, 2), tile=3)]
    shards = {row["id"]: row for p in parts for row in p.table.to_pylist()}
    direct = votes(MODEL, BATCH, tile=8)
    assert again.table.equals(whole.table)
    assert evidence(whole) == direct.rows == [json.loads(shards[i]["evidence"]) for i in sorted(shards)]
    assert [row["u"] for row in evidence(whole)] == [luck(0, i) for i in range(8)]
    assert [row["u"] for row in evidence(group(certified(tmp_path / "other", votes, seed=1))[0])] == [
        luck(1, i) for i in range(8)
    ]
    fixed = smoothing(n=200)(MODEL, BATCH, tile=8).radius
    assert (direct.radius >= fixed).all()
    assert (direct.radius > fixed).any()
    assert list(poll_problems(everything(tmp_path / "whole"))) == []
    assert verify_part(whole).problems == ()


def test_verify_refuses_other_luck(tmp_path: Path) -> None:
    certified(tmp_path, smoothing(rule="randomised", n=128))
    found = group(everything(tmp_path))

    def forged(change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Part]:
        changed = []
        for item in found:
            if item.kind == "certificate":
                columns = {name: item.table.column(name).to_pylist() for name in item.table.column_names}
                columns["evidence"] = [json.dumps(change(json.loads(row))) for row in columns["evidence"]]
                item = part("certificate", item.unit, item.facts, columns)
            changed.append(item)
        return changed

    for change in (lambda row: row | {"u": 1e-9}, lambda row: {k: v for k, v in row.items() if k != "u"}):
        assert any("follows from seed and id" in problem for problem in poll_problems(forged(change)))
    assert list(poll_problems(forged(lambda row: row))) == []


def test_a_conclusion_by_luck_from_votes_that_were_seen_is_exploratory(tmp_path: Path) -> None:
    certified(tmp_path, smoothing(n=128))
    (later,) = group(certified(tmp_path, smoothing(n=128, rule="randomised")))
    assert later.facts["proof"] == "estimate"


# --- looks -----------------------------------------------------------------------------------------------------


def test_looks_are_ends_of_blocks_and_n_is_the_last() -> None:
    assert schedule(100_000) == (256, 2048, 16_384, 100_000)
    assert schedule(100) == (100,)
    assert smoothing(rule="looks").plan.looks == (128, 600)
    assert smoothing(rule="looks", looks=(256, 600)).plan.looks == (256, 600)
    for looks in [(100, 600), (256, 512), (600, 256), (128, 128, 600), (600, 1024)]:
        with pytest.raises(ValueError, match=r"ends of blocks.*\[128, 256, 512, 600\]"):
            smoothing(rule="looks", looks=looks)
    with pytest.raises(ValueError, match="takes no looks"):
        smoothing(rule="anytime", looks=(600,))
    for rule in ("fixed", "randomised"):
        with pytest.raises(ValueError, match="rule=anytime or rule=looks"):
            smoothing(rule=rule, goal=0.1)


def test_a_bound_is_taken_at_a_look_alone() -> None:
    votes = smoothing(rule="looks")
    for n, judged in [(128, True), (256, False), (600, True)]:
        seen = VoteCounts((10, 0), (n - 3, 3), votes.plan, n)
        assert DERIVE["smoothing"](*told(seen))[0] == (0 if judged else ABSTAIN)
        if judged:
            bound = stats.beta.ppf(0.005, n - 3, 4)
            assert votes.radius(seen) == pytest.approx(0.1 * stats.norm.ppf(bound))
        else:
            with pytest.raises(HauberkError, match="by the plan"):
                votes.radius(seen)


def test_images_with_a_goal_stop_at_a_look_alone(tmp_path: Path) -> None:
    votes = smoothing(rule="looks", n=2048, looks=(256, 1024, 2048), goal=0.02)
    (found,) = group(certified(tmp_path, votes))
    drawn = {row.get("drawn", 2048) for row in evidence(found)}
    assert drawn <= {256, 1024, 2048}
    assert 256 in drawn
    direct = votes(MODEL, BATCH, tile=8)
    assert evidence(found) == direct.rows
    assert list(poll_problems(everything(tmp_path))) == []
    assert verify_part(found).problems == ()
    (other,) = group(certified(tmp_path, smoothing(rule="looks", n=2048, looks=(256, 2048))))
    assert other.facts["proof"] == "estimate"  # other looks than were planned
    forged = Part("certificate", other.unit, {k: v for k, v in other.facts.items() if k != "exploratory"}, other.table)
    assert any("looks:256:1024:2048" in p for p in poll_problems([*everything(tmp_path), forged]))
    shared = {**found.facts["shared"], "looks": [256, 2048]}
    assert any("asked for looks" in p for p in verify_part(Part(
        "certificate", found.unit, {**found.facts, "shared": shared}, found.table)).problems)  # fmt: skip


# --- derived again ------------------------------------------------------------------------------------------------


def told(seen: VoteCounts | OfMix) -> tuple[dict[str, Any], dict[str, Any]]:
    (row,), shared = on_record([seen])
    return json.loads(json.dumps(row)), shared


@pytest.mark.parametrize("rule", ["randomised", "looks"])
@pytest.mark.parametrize("rival", ["rest", "runner_up"])
@pytest.mark.parametrize("noise", [Gaussian(0.5), GridGaussian(0.5), Laplace(0.3)], ids=str)
def test_verify_derives_the_same_by_other_means(noise: Noise, rival: str, rule: str) -> None:
    votes = smoothing(noise=noise, n=512, rival=rival, rule=rule, n0=100)
    mix = MixedCertificate(votes)
    draws = np.random.default_rng(0)
    certain = 0
    for number in range(24):
        counts = tuple(map(int, draws.multinomial(512 - number % 3, draws.dirichlet((4, 1, 0.3, 0.3)))))
        if number % 6 == 0:
            counts = (512, 0, 0, 0)
        u = (1e-3, 0.012, 1.0 - draws.random())[number % 3]
        seen = VoteCounts((100, 0, 0, 0), counts, votes.plan, None, u if rule == "randomised" else 1.0)
        top, radius = DERIVE["smoothing"](*told(seen))
        assert top == votes.decision(seen)
        assert votes.radius(seen) == pytest.approx(radius, rel=1e-8, abs=1e-9)
        whole = OfMix(seen, 0.8, None, "smoothing")
        row, shared = told(whole)
        top, radius = DERIVE["mixed_margin"](row, shared | {"bound": mix.bound})
        assert top == mix.decision(whole)
        assert mix.radius(whole) == pytest.approx(radius, rel=1e-8, abs=1e-9)
        assert VoteCounts.read(*told(seen)) == seen
        certain += mix.radius(whole) > 0
    assert certain > 5


@pytest.mark.parametrize("rival", ["rest", "runner_up"])
def test_luck_never_costs_a_radius(rival: str) -> None:
    fixed, lucky = (smoothing(rule=rule, rival=rival, n=500) for rule in ("fixed", "randomised"))
    for own in (0, 240, 300, 499, 500):
        counts = (own, 500 - own, 0)
        known = fixed.radius(VoteCounts((10, 0, 0), counts, fixed.plan))
        radii = [lucky.radius(VoteCounts((10, 0, 0), counts, lucky.plan, None, u)) for u in (1.0, 0.5, 1e-9)]
        assert radii == sorted(radii)
        assert radii[0] == pytest.approx(known, rel=1e-9)
        assert np.isfinite(radii).all()
