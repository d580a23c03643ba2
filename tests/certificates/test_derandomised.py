"""Votes over all splits: against every grid image of tiny ones, real attackers, and bases made to reach the bound."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from hauberk import registry, verify
from hauberk.batch import Batch
from hauberk.certificates import ABSTAIN, DerandomisedSplitting, MixedCertificate
from hauberk.certificates.evidence import SplitCounts
from hauberk.classifier import decide
from hauberk.defences.derandomised import DerandomisedClassifier, derandomised, split_votes, splits_of, views
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.models import small_cnn
from hauberk.noises import Uniform
from hauberk.records import Part, group, read_all
from hauberk.report import charts, collect, words
from hauberk.verify.derive.splits import splits as derived

SETTING = Setting("tiny", "test", ("a", "b", "c"), tile=8)


class Waves(nn.Module):
    """Three classes that change often within two pixels; ``broad`` says how seldom."""

    def __init__(self, broad: float) -> None:
        super().__init__()
        self.register_buffer("speeds", torch.tensor([[3.0, -1.0], [-2.0, 5.0], [1.0, 2.0]]).double() / broad)

    def forward(self, images: Tensor) -> Tensor:
        seen = images.flatten(1).double() @ self.speeds.T + torch.tensor([0.2, 1.1, 2.5])  # type: ignore[operator]
        return torch.sin(seen)


class Among(nn.Module):
    """Class 1 where the one pixel's view is one of some, class 0 elsewhere."""

    def __init__(self, some: Tensor) -> None:
        super().__init__()
        self.register_buffer("some", some.flatten())

    def forward(self, images: Tensor) -> Tensor:
        found = (images.flatten(1)[:, :1] == self.some).any(1).float()  # type: ignore[operator]
        return torch.stack([0.5 - found, found - 0.5], 1)


def batch_of(images: Tensor) -> Batch:
    return Batch(images, torch.zeros(len(images)).long(), torch.arange(len(images)))


def cells(level: int, start: int, splits: int) -> tuple[int, int]:
    """The levels that share an interval with one, found by walking to the next split on either side."""
    low = high = level
    while low > 0 and (low - 1 - start) % splits:
        low -= 1
    while high < 255 and (high - start) % splits:
        high += 1
    return low, high


@pytest.mark.parametrize("splits", [2, 7, 40, 255, 300, 700])
def test_a_view_is_the_middle_between_two_splits(splits: int) -> None:
    rng = np.random.default_rng(splits)
    for level, start in zip(rng.integers(0, 256, 60).tolist(), rng.integers(0, splits, 60).tolist(), strict=True):
        low, high = cells(level, start, splits)
        found = views(torch.tensor(level), torch.tensor(start), splits)
        assert float(found) == pytest.approx((low + high) / 510, abs=1e-15)


@pytest.mark.parametrize("splits", [2, 9, 60, 300])
def test_two_levels_are_told_apart_by_as_many_splits_as_lie_between_them(splits: int) -> None:
    """For m > 255 too, where several starts split nothing."""
    seen = views(torch.arange(256)[:, None], torch.arange(splits), splits)
    apart = (seen[:, None] != seen[None]).sum(2)
    between = (torch.arange(256)[:, None] - torch.arange(256)).abs().clamp_max(splits)
    assert torch.equal(apart, between)


def every_vote(base: nn.Module, splits: int, seed: int) -> np.ndarray:
    """The votes of all 65,536 images of two pixels, by another route than the certificate: (256, 256, K)."""
    template = splits_of(seed, splits, (1, 1, 2)).flatten().tolist()
    counts = 0
    for vote in range(splits):
        middles = []
        for t in template:
            ends = [cells(q, (vote + t) % splits, splits) for q in range(256)]
            middles.append(torch.tensor([(a + b) / 510 for a, b in ends]))
        pairs = torch.cartesian_prod(*middles).view(-1, 1, 1, 2)
        counts = counts + np.eye(3, dtype=int)[base(pairs).argmax(1).numpy()]
    return np.asarray(counts).reshape(256, 256, 3)


@pytest.mark.parametrize(("splits", "broad"), [(24, 0.3), (60, 0.5), (300, 0.3)])
def test_no_grid_image_within_the_radius_decides_otherwise(splits: int, broad: float) -> None:
    base = Waves(broad).eval()
    votes = every_vote(base, splits, seed=3)
    best = np.sort(votes, 2)
    winner = np.where(best[..., 2] > best[..., 1], votes.argmax(2), ABSTAIN)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (150, 2)))
    certificate = DerandomisedSplitting(splits, 3, "grid")
    found = certificate(base, batch_of(pixels.view(-1, 1, 1, 2) / 255))
    assert found.norm == "levels" and found.kind == "deterministic" and found.failure_probability == 0.0
    rows, columns = np.indices((256, 256))
    gaps = []
    for (one, two), row, prediction, radius in zip(
        pixels.tolist(), found.rows, found.prediction.tolist(), found.radius.tolist(), strict=True
    ):
        assert row["counts"] == votes[one, two].tolist() and prediction == winner[one, two]
        far = np.abs(rows - one) + np.abs(columns - two)
        if prediction != ABSTAIN:
            nearest = far[winner != prediction].min(initial=600)
            assert nearest > radius
            gaps.append(nearest - radius)
    assert max(found.radius) > splits / 5 and min(gaps) <= 3  # the bound is near, for some images


@pytest.mark.parametrize(("turned", "splits"), [(3, 10), (2, 10), (0, 9), (31, 64), (40, 130)])
def test_a_base_made_for_it_loses_its_lead_one_level_beyond_the_radius(turned: int, splits: int) -> None:
    """One pixel: the votes against the class are those that a move upwards does not touch."""
    start = torch.remainder(torch.arange(splits) + splits_of(0, splits, (1, 1, 1)), splits).flatten()
    level = 120
    behind = torch.remainder(level - 1 - start, splits)  # 0 for the split just below the level
    own = views(torch.tensor(level), start[behind >= turned], splits).float()
    base = Among(own.unique()).eval()
    counts = split_votes(base, torch.full((1, 1, 1), level / 255), splits, 0).tolist()
    grid = DerandomisedSplitting(splits, attacker="grid")
    (most,) = grid(base, batch_of(torch.full((1, 1, 1, 1), level / 255))).radius.tolist()
    assert most == -(-(counts[1] - counts[0]) // 2) - 1
    around = torch.arange(level - int(most) - 1, level + int(most) + 2).view(-1, 1, 1, 1)
    model = DerandomisedClassifier(base, splits, 0, 2).eval()
    classes = decide(model, batch_of(around / 255))
    assert bool((classes[1:-1] == 1).all()) and not bool((classes[[0, -1]] == 1).all())
    # a real attacker needs half a level for the first, and here no more than the bound says
    (radius,) = DerandomisedSplitting(splits)(base, batch_of(torch.full((1, 1, 1, 1), level / 255))).radius.tolist()
    assert radius == pytest.approx((most + 0.5) / 255, abs=1e-7)
    ends = torch.tensor([level / 255 + radius - 1e-6, level / 255 + radius + 1e-6])
    below, above = decide(model, batch_of(ends.view(-1, 1, 1, 1)))
    assert below.item() == 1 and (above.item() != 1 or classes[0] != 1)


def cost(pixels: int, away: float, reached: int) -> float:
    """The shortest real change whose rounding is so many levels, over all ways to share them out between pixels."""
    best = min(reached, pixels)  # a pixel's first level is the cheapest
    return min((0.5 - away) * k + (reached - k) for k in range(1, best + 1)) / 255


@pytest.mark.parametrize("away", [0.0, 0.3])
def test_real_points_within_the_radius_are_decided_alike(away: float) -> None:
    base = Waves(0.5).eval()
    splits, seed = 60, 3
    best = np.sort(every_vote(base, splits, seed), 2)
    winner = np.where(best[..., 2] > best[..., 1], every_vote(base, splits, seed).argmax(2), ABSTAIN)
    rng = np.random.default_rng(2)
    levels = rng.integers(1, 255, (60, 2))
    images = torch.from_numpy((levels + away) / 255).float().view(-1, 1, 1, 2)
    found = DerandomisedSplitting(splits, seed)(base, batch_of(images))
    assert found.norm == "l1"
    broken = 0
    for image, radius, prediction, row in zip(
        images.double().flatten(1).numpy(), found.radius.tolist(), found.prediction.tolist(), found.rows, strict=True
    ):
        if prediction == ABSTAIN:
            continue
        lead = np.sort(row["counts"])[-1] - np.sort(row["counts"])[-2]
        assert radius == pytest.approx(cost(2, row["away"], -(-lead // 2)), rel=1e-9)
        assert radius <= cost(2, row["away"], -(-lead // 2))
        shares = rng.dirichlet([0.5, 0.5], 4000) * rng.choice([-1, 1], (4000, 2))
        for size, inside in ((radius, True), (radius + 1.5 / 255, False)):
            moved = np.clip(image + size * (1 - 1e-9) * shares, 0, 1)
            rounded = np.rint(255 * moved).astype(int)
            other = winner[rounded[:, 0], rounded[:, 1]] != prediction
            assert not (inside and other.any())
            broken += int(not inside and other.any())
    assert broken > 3


def test_the_radius_is_published_and_that_of_uniform_noise() -> None:
    """D / 255 is lambda (p_A - p_B), less what makes it strict; with all votes it is that of uniform noise."""
    seen = SplitCounts((700, 120, 63), 64, 0.0, 883, 0, "grid")
    grid = DerandomisedSplitting(883, attacker="grid")
    assert grid.radius(seen) == (700 - 120) // 2 - 1
    noise = Uniform(883 / 255 / 2 / 3**0.5)
    assert grid.radius(seen) / 255 < noise.radius(700 / 883, 0.0, 120 / 883) <= (grid.radius(seen) + 1) / 255
    any_point = dataclasses.replace(grid, attacker="any")
    assert any_point.radius(dataclasses.replace(seen, attacker="any")) == pytest.approx((64 * 0.5 + 290 - 64) / 255)


@pytest.mark.parametrize(
    ("counts", "most"),
    [((5, 5), None), ((6, 5), 0), ((7, 5), 0), ((8, 5), 1), ((9, 5), 1), ((0, 11), 5), ((3, 0, 0), 1), ((0, 0), None)],
)
def test_ties_are_not_certified(counts: tuple[int, ...], most: int | None) -> None:
    seen = SplitCounts(counts, 4, 0.0, 20, 0, "grid")
    certificate = DerandomisedSplitting(20, attacker="grid")
    assert certificate.decision(seen) == (ABSTAIN if most is None else int(np.argmax(counts)))
    assert certificate.radius(seen) == (most or 0)


@pytest.mark.parametrize("attacker", ["any", "grid"])
def test_margin_and_radius_are_inverse_and_derived_twice(attacker: Any) -> None:
    rng = np.random.default_rng(5)
    some = set()
    for _ in range(300):
        splits = int(rng.integers(2, 90))
        counts = tuple(rng.multinomial(splits, rng.dirichlet([0.3] * 4))[:3].tolist())
        away = float(rng.choice([0.0, 1e-5, 0.3, 0.5]))
        seen = SplitCounts(counts, int(rng.integers(1, 30)), away, splits, 1, attacker)
        certificate = DerandomisedSplitting(splits, 1, attacker)
        for margin in (0.0, 0.1, 0.47, 0.3141):
            radius = certificate.radius(seen, margin)
            top, again = derived(seen.row(), seen.shared(), margin)
            assert top == certificate.decision(seen) and radius == pytest.approx(again, rel=1e-9)
            assert radius <= again
            if radius > 0:
                assert certificate.margin(seen, radius * (1 - 1e-9)) > margin
                assert certificate.margin(seen, radius + (1 if attacker == "grid" else 1e-9)) <= margin
            some.add(radius)
    assert len(some) > 30
    with pytest.raises(HauberkError, match="gather them again"):
        DerandomisedSplitting(splits + 1, 1, attacker).radius(seen)


def test_nobodys_votes_are_counted_as_anybodys() -> None:
    class Trap(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            first = images.flatten(1)[:, 0]
            logits = torch.stack([first, 1 - first], 1)
            logits[first > 0.6] = 0.0  # a tie
            logits[first < 0.2] = torch.nan
            return logits

    image = torch.full((1, 1, 1), 100 / 255)
    seen = views(torch.tensor(100), torch.arange(300), 300)
    counts = split_votes(Trap().eval(), image, 300, 0).tolist()
    nobody = ((seen.float() > 0.6) | (seen.float() < 0.2) | (seen.float() == 0.5)).sum()
    assert sum(counts) == 300 - nobody < 300
    certificate = DerandomisedSplitting(300, attacker="grid")
    assert certificate.radius(SplitCounts((0, 120), 1, 0.0, 300, 0, "grid")) == 59


# --- what is admitted -------------------------------------------------------------------------------------------


def net() -> nn.Module:
    torch.manual_seed(0)
    return small_cnn((1, 4, 4), 3, (0.4,), (0.3,), widths=(4, 6), strides=(1, 2)).eval()


def test_the_vote_decides_as_it_is_certified_whatever_the_batch() -> None:
    images = batch_of(torch.randint(0, 256, (7, 1, 4, 4)) / 255)
    model = derandomised(net(), 150, seed=2).eval()
    found = DerandomisedSplitting(150, 2)(model, images, seed=0, tile=64)
    assert decide(model, images).tolist() == found.prediction.tolist()
    alone = [DerandomisedSplitting(150, 2)(model.base, images.select(torch.tensor([i])), 9, 8) for i in range(7)]
    assert [a.rows[0] for a in alone] == found.rows
    assert found.predictor == alone[0].predictor == model.predictor
    assert len({tuple(split_votes(net(), images.images[0], 150, seed).tolist()) for seed in range(4)}) > 1


def test_an_attacker_has_gradients() -> None:
    model = derandomised(net(), 90).eval()
    images = (torch.rand(2, 1, 4, 4)).requires_grad_()
    model(images)[:, 0].sum().backward()
    assert bool((images.grad != 0).any())
    assert model(images).exp().sum(1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert registry.build(model.spec).splits == 90


def test_what_it_cannot_certify_is_refused() -> None:
    model = derandomised(net(), 90).eval()
    images = batch_of(torch.rand(2, 1, 4, 4))
    for other in (DerandomisedSplitting(91), DerandomisedSplitting(90, 1)):
        with pytest.raises(HauberkError, match="the certificate over"):
            other(model, images)
    with pytest.raises(HauberkError, match="eval"):
        DerandomisedSplitting(90)(derandomised(net(), 90).train(), images)
    with pytest.raises(HauberkError, match="draws random numbers"):
        DerandomisedSplitting(90)(nn.Sequential(Noisy(), net()).eval(), images)

    class Mine(DerandomisedClassifier):
        pass

    with pytest.raises(HauberkError, match="expected exactly DerandomisedClassifier"):
        DerandomisedSplitting(90)(Mine(net(), 90, 0, 2).eval(), images)
    with pytest.raises(HauberkError, match="of its own"):
        DerandomisedSplitting(90)(derandomised(model, 90).eval(), images)
    model.splits = 90.0  # type: ignore[assignment]
    with pytest.raises(HauberkError, match="expected a number of splits and a seed"):
        DerandomisedSplitting(90)(model, images)
    with pytest.raises(ValueError, match="a mix has no such"):
        MixedCertificate(DerandomisedSplitting(90))


class Noisy(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images + 0.1 * torch.randn_like(images)


# --- records ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["any", "grid"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Part:
    folder: Path = tmp_path_factory.mktemp("records")
    levels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 1, 1, 2)))
    certificate = DerandomisedSplitting(60, 3, request.param)
    certificate_records(Waves(0.5).eval(), batch_of(levels / 255), certificate, SETTING, Work(folder))
    (part,) = group(read_all(folder, "certificate"))
    return part


def described(part: Part, edit: Callable[[dict[str, Any], dict[str, Any]], None]) -> Part:
    unit, facts = copy.deepcopy(dict(part.unit)), copy.deepcopy(dict(part.facts))
    edit(unit, facts)
    return dataclasses.replace(part, unit=unit, facts=facts)


def changed(part: Part, name: str, change: Callable[[list[Any]], list[Any]]) -> Part:
    index = part.table.schema.get_field_index(name)
    values = pa.array(change(part.table.column(name).to_pylist()), part.table.schema.field(name).type)
    return dataclasses.replace(part, table=part.table.set_column(index, part.table.schema.field(name), values))


def test_verify_derives_every_row_and_a_page_draws_them(recorded: Part) -> None:
    assert verify.verify_part(recorded).problems == ()
    assert max(recorded.column("radius")) > 0
    (subject,) = collect.subjects([recorded])
    norm = subject.certified[0].norm
    assert norm == recorded.facts["norm"] and norm in words.changes(norm, 2.0) + "l1"
    assert "level" in charts.epsilon_axis("levels")[1]
    if norm == "levels":
        assert all(level.eps == int(level.eps) for level in subject.certified[0].levels)
        assert words.changes(norm, 2.0) == "changes of at most 2 levels of 8 bits in all"


@pytest.mark.parametrize("step", [1.0, -1.0, 1e-5])
def test_a_tampered_radius_is_found(recorded: Part, step: float) -> None:
    bad = changed(recorded, "radius", lambda values: [v + step if v > 0 else v for v in values])
    assert verify.verify_part(bad).problems


def in_rows(**values: Any) -> Callable[[Part], Part]:
    return lambda part: changed(part, "evidence", lambda rows: [json.dumps(json.loads(r) | values) for r in rows])


def in_facts(**values: Any) -> Callable[[Part], Part]:
    return lambda part: described(part, lambda _, facts: facts.update(values))


def in_shared(**values: Any) -> Callable[[Part], Part]:
    return lambda part: described(part, lambda _, facts: facts["shared"].update(values))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (in_rows(pixels=3), "not of 1x1x2 values"),
        (in_rows(away=-0.5), "farther from whole levels"),
        (in_rows(counts=[61, 0, 0]), "more votes than 60 splits"),
        (in_rows(counts=[60, 0, -1]), "a number of votes is none"),
        (in_rows(counts=[60, 0]), "2 counts for 3 classes"),
        (in_shared(splits=600), "was asked for splits = 60"),
        (in_shared(seed=0), "was asked for seed = 3"),
        (in_shared(attacker="none"), "was asked for attacker"),
        (in_facts(norm="l2"), "claims radii in l2"),
        (in_facts(proof="probabilistic"), "claims to be probabilistic"),
        (in_facts(failure_probability=0.001), "claims failure probability"),
    ],
)
def test_other_claims_are_found(recorded: Part, edit: Callable[[Part], Part], said: str) -> None:
    assert any(said in p for p in verify.verify_part(edit(recorded)).problems), verify.verify_part(edit(recorded))


def test_the_vote_abstains_where_two_classes_are_level() -> None:
    start = torch.remainder(torch.arange(10) + splits_of(0, 10, (1, 1, 1)), 10).flatten()
    base = Among(views(torch.tensor(120), start[:5], 10).float().unique()).eval()
    level = batch_of(torch.full((1, 1, 1, 1), 120 / 255))
    assert split_votes(base, level.images[0], 10, 0).tolist() == [5, 5]
    assert decide(DerandomisedClassifier(base, 10, 0, 2).eval(), level).tolist() == [ABSTAIN]
    assert DerandomisedSplitting(10)(base, level).prediction.tolist() == [ABSTAIN]
