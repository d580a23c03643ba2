"""Votes on record: blocks that add up, shared by certificates, more of them later, and the plan that comes first."""

import copy
import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats
from torch import nn

from hauberk import compaction
from hauberk.batch import Batch
from hauberk.certificates import Certificate, MixedCertificate, SmoothingCertificate
from hauberk.certificates.evidence import VoteCounts
from hauberk.certificates.votes import Block, blocks
from hauberk.conformance import LinearOracle
from hauberk.defences import MixedClassifier
from hauberk.defences.smoothed import Replayed, noisy_votes, shared_votes
from hauberk.errors import HauberkError
from hauberk.evaluation import voting
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.noises import Gaussian, GridGaussian, Laplace, Noise, Uniform
from hauberk.randomness import SHARED, Consecutive, stream
from hauberk.records import Part, group, part, read_all, write
from hauberk.verify.polls import poll_problems
from hauberk.verify.proofs import verify_part

MODEL = LinearOracle.random((1, 3, 3), num_classes=4, seed=1)
BATCH = LinearOracle.random((1, 3, 3), num_classes=4, seed=3).batch(8)


def plan(n: int, **other: Any) -> SmoothingCertificate:
    return SmoothingCertificate(**({"noise": Gaussian(0.25), "n0": 10, "n": n, "alpha": 0.01} | other))


def certified(
    folder: Path, certificate: Certificate, model: nn.Module = MODEL, shard: tuple[int, int] = (0, 1), seed: int = 0,
    tile: int = 256,
) -> Part:
    setting = Setting("toy", "test", tuple("abcd"), tile=tile, seed=seed)
    return group(certificate_records(model, BATCH, certificate, setting, Work(folder, shard)))[0]


def everything(folder: Path) -> list[Part]:
    return [p for kind in ("certificate", "fingerprint", "votes", "plan") for p in read_all(folder, kind)]  # type: ignore[arg-type]


def problems(folder: Path) -> list[str]:
    return list(poll_problems(everything(folder)))


def test_blocks_start_where_they_start_whatever_is_asked_for() -> None:
    assert list(blocks("counts", 100)) == [Block("counts", 0, 100)]
    assert [(b.start, b.stop) for b in blocks("counts", 800)] == [(0, 128), (128, 256), (256, 512), (512, 800)]
    for count in (1, 127, 128, 129, 1024, 4096, 100_000):
        found = list(blocks("counts", count))
        assert found[0].start == 0
        assert found[-1].stop == count
        assert all(a.stop == b.start for a, b in itertools.pairwise(found))
        assert {b.start for b in found} <= {b.start for b in blocks("counts", 10**6)}


@pytest.mark.parametrize("rule", ["fixed", "anytime"])
def test_more_votes_later_equal_having_asked_at_once(tmp_path: Path, rule: str) -> None:
    certified(tmp_path / "twice", plan(600, rule=rule))
    later, at_once = (certified(tmp_path / name, plan(700, rule=rule)) for name in ("twice", "once"))
    assert later.table.equals(at_once.table)
    direct = plan(700, rule=rule)(MODEL, BATCH, tile=256)
    assert [json.loads(e) for e in at_once.table.column("evidence").to_pylist()] == direct.rows
    assert at_once.column("radius").tolist() == direct.radius.tolist()
    assert later.facts["proof"] == ("estimate" if rule == "fixed" else "probabilistic")
    assert at_once.facts["proof"] == "probabilistic"
    assert problems(tmp_path / "twice") == problems(tmp_path / "once") == []
    assert verify_part(later).problems == verify_part(at_once).problems == ()


def test_votes_that_are_there_are_not_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certified(tmp_path, plan(600, rule="anytime"))
    asked: list[Block] = []
    count = voting.Poll.count

    def counting(self: voting.Poll, batch: Any, seed: int, tile: int, block: Block) -> list[list[int]]:
        asked.append(block)
        return count(self, batch, seed, tile, block)

    monkeypatch.setattr(voting.Poll, "count", counting)
    certified(tmp_path, plan(600, rule="anytime"))
    assert asked == []
    certified(tmp_path, plan(700, rule="anytime"))
    assert set(asked) == {Block("counts", 512, 700)}


def test_the_plan_is_on_record_before_the_first_vote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[bool] = []
    keep = compaction.write

    def watching(folder: Path, item: Part) -> Path:
        there.append(bool(list(folder.glob("plan-*"))))
        return keep(folder, item)

    monkeypatch.setattr(compaction, "write", watching)
    certified(tmp_path, plan(500))
    assert there
    assert all(there)


@pytest.mark.parametrize(
    "other", [{"rival": "runner_up"}, {"n": 600}, {"alpha": 0.05}, {"n0": 20}, {"rule": "anytime"}], ids=str
)
def test_what_keeps_to_no_plan_is_exploratory(tmp_path: Path, other: dict[str, Any]) -> None:
    first = certified(tmp_path, plan(500))
    later = certified(tmp_path, plan(**({"n": 500} | other)))
    assert first.facts["proof"] == "probabilistic"
    assert (later.facts["proof"], later.facts["failure_probability"]) == ("estimate", 1.0)
    assert later.facts["exploratory"]["n"] == 500
    again = certified(tmp_path, plan(500))  # the plan itself stays what it was
    assert again.facts == first.facts
    assert problems(tmp_path) == []
    forged = Part("certificate", later.unit, {k: v for k, v in later.facts.items() if k != "exploratory"}, later.table)
    assert any("exploratory" in p for p in poll_problems([*everything(tmp_path), forged]))


@pytest.mark.parametrize("fresh", [{"seed": 1}, {"noise": Gaussian(0.5)}, {"noise": Laplace(0.25)}], ids=str)
def test_fresh_votes_have_a_plan_of_their_own(tmp_path: Path, fresh: dict[str, Any]) -> None:
    certified(tmp_path, plan(500))
    noise = fresh.get("noise", Gaussian(0.25))
    assert certified(tmp_path, plan(600, noise=noise), seed=fresh.get("seed", 0)).facts["proof"] == "probabilistic"
    assert len(read_all(tmp_path, "plan")) == 2
    assert problems(tmp_path) == []


def test_noise_that_images_share_gives_each_the_votes_of_one_stream(tmp_path: Path) -> None:
    """Whatever the other images, shards and tiles are; each row as if it were counted alone under that stream."""
    shared = plan(700, draws="shared")
    whole = certified(tmp_path / "whole", shared)
    for index in (0, 1):
        certified(tmp_path / "shards", shared, shard=(index, 2), tile=4)
    assert [p.table for p in group(read_all(tmp_path / "shards", "votes"))][0].equals(  # noqa: RUF015
        group(read_all(tmp_path / "whole", "votes"))[0].table
    )
    rows = [json.loads(e) for e in whole.table.column("evidence").to_pylist()]
    for image, row in zip(BATCH.images, rows, strict=True):
        keys = [(b.stop - b.start, (0, SHARED, f"smoothing-counts@{b.start}")) for b in blocks("counts", 700)]
        votes = [noisy_votes(MODEL, image, shared.noise, count, key, 256) for count, key in keys]
        assert torch.stack(votes).sum(0).tolist() == row["counts"]
    assert whole.facts["shared"]["draws"] == "shared"
    assert whole.facts["proof"] == "probabilistic"
    assert problems(tmp_path / "whole") == problems(tmp_path / "shards") == []
    assert verify_part(whole).problems == ()


def test_shared_noise_and_noise_of_their_own_have_plans_apart(tmp_path: Path) -> None:
    own, shared = (certified(tmp_path, plan(500, draws=draws)) for draws in ("own", "shared"))
    assert own.facts["proof"] == shared.facts["proof"] == "probabilistic"
    assert own.facts["votes"] != shared.facts["votes"]
    assert len(read_all(tmp_path, "plan")) == 2
    assert own.table.column("evidence") != shared.table.column("evidence")
    assert problems(tmp_path) == []
    later = certified(tmp_path, plan(600, draws="shared"))
    assert later.facts["exploratory"]["draws"] == "shared"


def test_verify_sees_votes_of_shared_noise_that_are_called_independent(tmp_path: Path) -> None:
    certified(tmp_path, plan(500, draws="shared"))
    found = []
    for item in everything(tmp_path):
        facts = {k: v for k, v in item.facts.items() if k != "shared"}
        told = {k: v for k, v in item.facts.get("shared", {}).items() if k != "draws"}
        found.append(Part(item.kind, item.unit, facts | ({"shared": told} if told else {}), item.table))
    assert any("plan of other votes (draws)" in problem for problem in poll_problems(found))
    assert any("another draws" in p for item in found if item.kind == "certificate" for p in verify_part(item).problems)
    method = {"name": "votes", "noise": {"name": "gaussian", "sigma": 0.25}}
    renamed = [Part(p.kind, {**p.unit, "method": method}, p.facts, p.table) if p.kind == "votes" else p
               for p in everything(tmp_path)]  # fmt: skip
    assert any("no plan that stands before them" in problem for problem in poll_problems(renamed))


def test_the_counts_of_an_image_have_one_law_and_those_of_equal_images_are_equal() -> None:
    """Over 400 seeds the mean of each image is that of noise of its own."""
    images = torch.stack([BATCH.images[0], BATCH.images[0], BATCH.images[1]])
    batch = Batch(images, BATCH.labels[:3], torch.arange(3))
    counts = {}
    for draws in ("own", "shared"):
        poll = plan(64, draws=draws).poll(MODEL)
        counts[draws] = np.array([poll.count(batch, seed, 64, Block("counts", 0, 64)) for seed in range(400)])
    shared, own = counts["shared"], counts["own"]
    assert (shared[:, 0] == shared[:, 1]).all()
    assert (own[:, 0] != own[:, 1]).any()
    assert (shared[1:, 0] != shared[0, 0]).any()  # another seed, other draws
    error = np.sqrt((shared.var(0) + own.var(0)) / 400)
    assert (np.abs(shared.mean(0) - own.mean(0)) <= 4.5 * error + 1e-12).all()
    top = int(own[:, 0].mean(0).argmax())
    assert abs(np.corrcoef(own[:, 0, top], own[:, 1, top])[0, 1]) < 0.2


@pytest.mark.parametrize("noise", [Gaussian(0.25), GridGaussian(0.25), Laplace(0.25), Uniform(0.25)], ids=str)
def test_draws_are_given_again_to_every_noise(noise: Noise) -> None:
    found = shared_votes(MODEL, BATCH.images, noise, 300, (0, 0, "test"), 128)
    alone = [noisy_votes(MODEL, image, noise, 300, (0, 0, "test"), 128) for image in BATCH.images]
    assert torch.equal(found, torch.stack(alone))


def test_draws_in_another_order_are_refused() -> None:
    draws = Replayed(Consecutive(stream(0, 0, "test"), 2))
    first = draws.normal(3).add_(1.0)
    draws.again()
    assert torch.equal(draws.normal(3) + 1.0, first)
    draws.again()
    with pytest.raises(HauberkError, match="the second time"):
        draws.uniform(3)
    draws.forget()
    assert draws.uniform(3).shape == (2, 3)


def test_the_certificates_of_a_mix_share_the_votes_for_its_robust_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix = MixedClassifier(LinearOracle.random((1, 3, 3), num_classes=4, seed=5), MODEL, 0.9, 1.0, 1.0).eval()
    found = certified(tmp_path, MixedCertificate(plan(500)), mix)
    direct = MixedCertificate(plan(500))(mix, BATCH, tile=256)
    assert [json.loads(e) for e in found.table.column("evidence").to_pylist()] == direct.rows
    monkeypatch.setattr(voting.Poll, "count", None)
    for bound in ("theorem_3_5", "theorem_a1"):
        other = certified(tmp_path, MixedCertificate(plan(500), bound=bound), mix)
        assert other.facts["proof"] == "probabilistic"
    assert problems(tmp_path) == []


def test_shards_and_joined_units_say_the_same(tmp_path: Path) -> None:
    whole = certified(tmp_path / "whole", plan(250), tile=4)
    for index in (1, 0):
        certified(tmp_path / "shards", plan(250), shard=(index, 2), tile=4)
    names = [sorted(p.name for p in (tmp_path / folder).iterdir()) for folder in ("whole", "shards")]
    assert names[0] == names[1]
    assert group(read_all(tmp_path / "shards", "certificate"))[0].table.equals(whole.table)
    (joined,) = group(read_all(tmp_path / "whole", "votes"))
    assert joined.table.num_rows == 8 * 3
    others = [p for p in everything(tmp_path / "whole") if p.kind != "votes"]
    assert list(poll_problems([*others, joined])) == []
    write(tmp_path / "joined", joined)
    assert read_all(tmp_path / "joined", "votes")[0].table.equals(joined.table)


def test_votes_pass_the_gate_too(tmp_path: Path) -> None:
    """Dropout would vote at random in train mode, and its counts would stay on record."""
    model = nn.Sequential(copy.deepcopy(MODEL), nn.Dropout(0.5)).train()
    with pytest.raises(HauberkError, match="train mode"):
        certified(tmp_path, plan(500), model)
    assert not list(tmp_path.glob("votes-*"))


# --- a goal -------------------------------------------------------------------------------------------------------


def test_a_goal_stops_each_image_when_it_is_settled(tmp_path: Path) -> None:
    """Counts are those of the first blocks of the whole; what is certified at the goal by all votes mostly is here."""
    asked = {"noise": Gaussian(0.1), "rule": "anytime"}
    whole = certified(tmp_path / "whole", plan(4000, **asked), tile=4)
    goal = 0.6 * float(whole.column("radius").max())
    found = certified(tmp_path / "goal", plan(4000, goal=goal, **asked), tile=4)
    direct = plan(4000, goal=goal, **asked)(MODEL, BATCH, tile=4)
    rows = [json.loads(e) for e in found.table.column("evidence").to_pylist()]
    assert rows == direct.rows
    drawn = [row.get("drawn", 4000) for row in rows]
    assert min(drawn) == 128
    assert set(drawn) <= {b.stop for b in blocks("counts", 4000)}
    votes = voting.counted(read_all(tmp_path / "whole", "votes"))
    for i, (row, n) in enumerate(zip(rows, drawn, strict=True)):
        first = [c for b, c in votes[i] if b.purpose == "counts" and b.stop <= n]
        assert [sum(c) for c in zip(*first, strict=True)] == row["counts"]
    reached, all_of_them = (p.column("radius") >= goal for p in (found, whole))
    assert 0 < reached.sum() < 8
    assert (reached == all_of_them).mean() > 0.8
    assert problems(tmp_path / "goal") == []
    assert verify_part(found).problems == ()
    more = certified(tmp_path / "goal", plan(8000, goal=0.5 * goal, **asked), tile=4)  # another stop is as valid
    assert more.facts["proof"] == "probabilistic"
    assert problems(tmp_path / "goal") == []


def test_a_goal_needs_a_bound_that_holds_at_any_time() -> None:
    with pytest.raises(ValueError, match="rule=anytime"):
        plan(500, goal=0.1)
    few = VoteCounts((10, 0), (128, 0), plan(500).plan, drawn=128)
    with pytest.raises(HauberkError, match="by the plan"):
        plan(500).radius(few)


@pytest.mark.parametrize("rival", ["rest", "runner_up"])
@pytest.mark.parametrize("excess", [0.0, -0.01])
def test_false_certificates_at_the_goal_are_as_rare_as_alpha_says(rival: str, excess: float) -> None:
    """4,000 images just too near the boundary, looked at after every block: at most alpha of them, up to chance."""
    goal, alpha, noise = 0.1, 0.05, Gaussian(0.25)
    votes = plan(2048, goal=goal, rule="anytime", rival=rival, alpha=alpha)
    p = noise.cdf(goal / noise.sigma) + excess
    draws = np.random.default_rng(3)
    counts = np.stack([draws.binomial(b.stop - b.start, p, 4000) for b in blocks("counts", 2048)], 1).cumsum(1)
    stops = [b.stop for b in blocks("counts", 2048)]

    @functools.cache
    def looked(k: int, n: int) -> tuple[bool, bool]:
        seen = VoteCounts((10, 0), (k, n - k), votes.plan, n)
        return votes.settled(seen) or n == stops[-1], votes.radius(seen) >= goal

    false = 0
    for image in counts.tolist():
        looks = (looked(k, n) for k, n in zip(image, stops, strict=True))
        false += next(certified for over, certified in looks if over)
    assert false <= stats.binom.ppf(1 - 1e-6, 4000, alpha)
    assert excess or false > 0


# --- what verify sees ---------------------------------------------------------------------------------------------


def replaced(item: Part, name: str, change: Callable[[Any], Any]) -> Part:
    values = [change(v) if i == 3 else v for i, v in enumerate(item.table.column(name).to_pylist())]
    index = item.table.schema.get_field_index(name)
    field = item.table.schema.field(name)
    return Part(item.kind, item.unit, item.facts, item.table.set_column(index, field, pa.array(values, field.type)))


def _moved(counts: list[int]) -> list[int]:
    top = counts.index(max(counts))
    return [c - 1 if k == top else c + 1 if k == (top + 1) % 4 else c for k, c in enumerate(counts)]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("counts", _moved, "add up to"),
        ("counts", lambda c: [*c[:3], c[3] + 10**6], "is none"),
        ("counts", lambda c: [*c, 0], "is none"),
        ("counts", lambda c: [-1, *c[1:]], "is none"),
        ("start", lambda s: s + 1, "is none"),
        ("stop", lambda s: s - 1, "not on record"),
        ("stop", lambda s: s + 2000, "is none"),
        ("purpose", lambda p: {"counts": "counts0", "counts0": "counts"}[p], "not on record"),
    ],
)  # fmt: skip
def test_verify_sees_votes_that_were_changed(
    tmp_path: Path, name: str, change: Callable[[Any], Any], said: str
) -> None:
    certified(tmp_path, plan(500))
    found = group(everything(tmp_path))
    forged = [replaced(p, name, change) if p.kind == "votes" else p for p in found]
    assert any(said in problem for problem in poll_problems(forged))


def test_verify_sees_votes_plans_and_names_that_are_gone(tmp_path: Path) -> None:
    certified(tmp_path, plan(500))
    found = everything(tmp_path)
    assert any("not on record" in p for p in poll_problems([p for p in found if p.kind != "votes"]))
    assert any("no plan" in p for p in poll_problems([p for p in found if p.kind != "plan"]))
    assert any("is not there" in p for p in poll_problems([p for p in found if p.kind != "plan"]))
    nameless = [
        Part(p.kind, p.unit, {k: v for k, v in p.facts.items() if k != "votes"}, p.table)
        if p.kind == "certificate" else p for p in found
    ]  # fmt: skip
    assert any("names no votes" in p for p in poll_problems(nameless))


def test_verify_sees_the_plan_of_other_votes(tmp_path: Path) -> None:
    certified(tmp_path, plan(500))
    certified(tmp_path, plan(600), seed=1)
    found = everything(tmp_path)
    names = {p.unit["seed"]: p.key for p in found if p.kind == "plan"}
    crossed = [
        Part(p.kind, p.unit, p.facts | {"votes": names[1 - p.unit["seed"]]}, p.table)
        if p.kind == "certificate" else p for p in found
    ]  # fmt: skip
    assert any("plan of other votes" in p for p in poll_problems(crossed))


def test_verify_sees_a_longer_block_without_its_beginning(tmp_path: Path) -> None:
    certified(tmp_path, plan(500, rule="anytime"))
    certified(tmp_path, plan(900, rule="anytime"))
    found = everything(tmp_path)
    longer = [p for p in found if p.kind == "votes" and p.unit["stop"] == 512]
    forged = part("votes", longer[0].unit, longer[0].facts, {
        name: [[0, 0, 0, 0] if name == "counts" else v for v in longer[0].table.column(name).to_pylist()]
        for name in longer[0].table.column_names
    })  # fmt: skip
    rest = [p for p in found if p is not longer[0]]
    assert any("than its beginning" in p for p in poll_problems([*rest, forged]))
