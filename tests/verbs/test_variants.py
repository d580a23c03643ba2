"""One image is worth looking at, all are worth keeping: kept, exported, of whole levels, of a class, over budgets."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from hauberk import trust
from hauberk.audit import audit
from hauberk.data import load
from hauberk.errors import HauberkError
from hauberk.records import Part, group, read_all, write
from hauberk.report import collect, words
from hauberk.report.page import render, summary
from hauberk.report.subject import Subject
from hauberk.runs import Run
from hauberk.statistics import Interval
from hauberk.threats import Linf
from hauberk.verbs.export import kept, pictures
from hauberk.verbs.outcome import outcome
from hauberk.verbs.variants import class_of
from hauberk.verify.attacks import attack_problems
from hauberk.verify.wrapped import target, white

Typed = Callable[..., tuple[int, str]]
MINE = """
import torch
from torch import nn
def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    from hauberk.data import load
    batch = load("digits").train.batch()
    x, y = batch.images.flatten(1), nn.functional.one_hot(batch.labels, 10).float()
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    solved = torch.linalg.solve(x.T @ x + 3 * torch.eye(65), x.T @ y)
    with torch.no_grad():
        net[1].weight.copy_(8 * solved[:64].T)
        net[1].bias.copy_(8 * solved[64])
    return net.eval()
"""
BUDGETS = (20 / 255, 60 / 255)
APGD = ("--attack", "apgd,steps=5,loss=margin")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("mine")
    (path / "mine_variants.py").write_text(MINE)
    with trust.trusting("mine_variants:build"):
        yield path


@pytest.fixture
def ask(folder: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))

    def asked(*words: object, out: str, fails: bool = False) -> str:
        code, said = typed("attack", "mine_variants:build", "--data", "digits", "--images", 40, *words, "-o", out)
        assert (code != 0) == fails, said
        return said

    return asked


def parts(run: str) -> list[Part]:
    return group(read_all(Run.open(run).records, "attack"))


def subject(run: str) -> Subject:
    (found,) = collect.subjects(p for facts in collect.load([Path(run)]) for p in facts.parts)
    return found


def sound(run: str) -> list[str]:
    return [problem for verdict in audit(Path(run)) for problem in verdict.problems]


def changed(part: Part, name: str, place: int, value: object) -> Part:
    values = part.table.column(name).to_pylist()
    values[place] = value
    index = part.table.schema.get_field_index(name)
    column = pa.array(values, part.table.schema.field(name).type)
    return replace(part, table=part.table.set_column(index, part.table.schema.field(name), column))


def test_a_sweep_is_one_run_and_a_success_counts_at_every_larger_budget(ask: Callable[..., str]) -> None:
    said = ask("--threat", "linf:60/255,20/255,20/255", *APGD, out="sweep")
    assert [a.eps for a in subject("sweep").attacked] == list(BUDGETS)
    assert said.count("attacked linf") == 2
    small, large = sorted(parts("sweep"), key=lambda p: float(p.unit["threat"]["eps"]))
    lucky = next(n for n, s in enumerate(small.column("success")) if s and small.column("clean_prediction")[n]
                 == small.column("label")[n])  # fmt: skip
    forgetful = changed(changed(large, "success", lucky, False), "nearest", lucky, np.inf)
    (found,) = collect.subjects([small, forgetful])
    (before,) = collect.subjects([small, large])
    assert found.attacked[1].accuracy == before.attacked[1].accuracy
    assert "one norm" in ask("--threat", "linf:0.1,l2:1", *APGD, out="none", fails=True)


def test_all_images_are_kept_and_added_to_records_that_had_fewer(ask: Callable[..., str]) -> None:
    ask("--threat", "linf:8/255", *APGD, out="kept")
    (few,) = parts("kept")
    ask("--threat", "linf:8/255", *APGD, "--keep", "all", out="kept")
    (many,) = parts("kept")
    assert (40 - few.table.column("image").null_count, many.table.column("image").null_count) == (12, 0)
    assert few.table.drop_columns(["image", "adversarial"]).equals(many.table.drop_columns(["image", "adversarial"]))
    with pytest.raises(HauberkError, match="different rows"):
        write(Run.open("kept").records, changed(changed(many, "loss", 0, 9.0), "image", 1, None))
    (Run.open("kept").records / f"attack-{few.key}.parquet").unlink()
    write(Run.open("kept").records, few)
    with pytest.raises(HauberkError, match="different rows"):
        write(Run.open("kept").records, changed(many, "loss", 0, 9.0))
    write(Run.open("kept").records, many)
    ask("--threat", "linf:8/255", *APGD, "--keep", "3", out="kept")
    assert parts("kept")[0].table.column("image").null_count == 0  # nothing that is kept is thrown away
    assert sound("kept") == []


def test_kept_images_are_exported_as_arrays_and_pictures(ask: Callable[..., str], typed: Typed) -> None:
    ask("--threat", "linf:8/255", *APGD, "--keep", "all", out="shown")
    assert typed("export", "shown", "-o", "shown.npz")[0] == 0
    found = np.load("shown.npz")
    (part,) = parts("shown")
    assert found["ids"].tolist() == part.column("id").tolist()
    assert found["adversarial"].shape == (40, 1, 8, 8)
    assert np.abs(found["adversarial"] - found["images"]).reshape(40, -1).max(1) == pytest.approx(found["distances"])
    code, said = typed("export", "shown", "-o", "pictures")
    assert code == 0, said
    index = json.loads(Path("pictures/index.json").read_text())
    data = load("digits").test
    for row in index[:5]:
        one, other = (np.asarray(Image.open(f"pictures/{row['id']}-{n}.png"), int) for n in ("original", "adversarial"))
        assert np.array_equal(one, data.images[data.ids.tolist().index(row["id"]), 0].numpy())
        assert np.abs(other - one).max() <= 8
    assert "keeps no such images" in typed("export", "shown", "--threat", "linf:0.3")[1]


def test_several_threats_are_asked_about(ask: Callable[..., str]) -> None:
    ask("--threat", "linf:2/255,8/255", *APGD, out="two")
    with pytest.raises(HauberkError, match="several threats"):
        kept(Run.open("two"))
    assert len(kept(Run.open("two"), Linf(2 / 255))) == 12


def test_only_images_of_one_evaluation_are_put_together(ask: Callable[..., str], typed: Typed) -> None:
    ask("--threat", "linf:8/255", *APGD, out="mixed")
    folder = Run.open("mixed").records
    (part,) = parts("mixed")
    aimed = {"name": "towards", "threat": part.unit["threat"], "attack": part.unit["method"]}
    others = [
        replace(part, facts={**part.facts, "split": "val"}),
        replace(part, unit={**part.unit, "predictor": "mix", "alpha": 0.5}),
        replace(part, unit={**part.unit, "method": {**aimed, "target": 3}}),
        replace(part, unit={**part.unit, "method": {**aimed, "target": 4}}),
    ]
    others[0] = replace(others[0], unit={**part.unit, "data": "other"})
    write(folder, others[0])
    code, said = typed("export", "mixed", "-o", "mixed.npz")
    assert code == 1 and "several splits: test, val" in said and "--split" in said
    assert typed("export", "mixed", "--split", "val", "-o", "mixed.npz")[0] == 0
    write(folder, others[1])
    code, said = typed("export", "mixed", "--split", "test", "-o", "mixed.npz")
    assert code == 1 and "several predictors" in said and "--predictor" in said
    only = {"split": "test", "predictor": "mix"}
    assert len(kept(Run.open("mixed"), **only)) == 12
    write(folder, others[2])
    write(folder, others[3])
    assert len(kept(Run.open("mixed"), split="val")) == 12  # the attacks towards a class are of the split test
    assert len(kept(Run.open("mixed"), aim="4")) == len(kept(Run.open("mixed"), aim=3)) == 12
    for name in folder.glob("attack-*.parquet"):
        if name.stem.split("-")[1] in {part.key, others[0].key, others[1].key}:
            name.unlink()
    with pytest.raises(HauberkError, match="several targets: 3, 4"):
        kept(Run.open("mixed"))


@pytest.mark.parametrize(("levels", "fits"), [(255, True), (65535, False)])
def test_a_png_is_of_images_of_8_bits(levels: int, fits: bool, tmp_path: Path) -> None:
    image = (np.arange(4).reshape(1, 2, 2) / levels).astype(np.float32)
    rows = [{"id": 0, "image": image, "adversarial": image}]
    if fits:
        assert pictures(rows, tmp_path) == tmp_path
        assert json.loads((tmp_path / "index.json").read_text()) == [{"id": 0, "exact": True}]
        return
    with pytest.raises(HauberkError, match="8 bits") as raised:
        pictures(rows, tmp_path)
    assert "npz" in raised.value.hint and not list(tmp_path.iterdir())


def test_points_of_whole_levels_are_told_apart_and_verified(ask: Callable[..., str]) -> None:
    said = ask("--threat", "l2:0.4", *APGD, "--eight-bit", "--one-norm", "--keep", "all", out="levels")
    assert "in whole levels of 1/255" in said
    (part,) = parts("levels")
    assert white(part) == 255
    assert (subject("levels").attacked, sound("levels")) == ((), [])
    ((levels, (attacked,)),) = subject("levels").on_grid
    assert (levels, attacked.eps) == (255, 0.4)
    ask("--threat", "l2:0.4", *APGD, "--one-norm", out="levels")
    (free,) = subject("levels").attacked
    assert free.accuracy.value <= attacked.accuracy.value
    kept_point = np.frombuffer(part.table.column("adversarial")[3].as_py(), np.float32).copy()
    kept_point[0] += 0.3 / 255 if kept_point[0] < 0.5 else -0.3 / 255
    forged = changed(part, "adversarial", 3, kept_point.tobytes())
    assert any("no whole levels" in p for p in attack_problems(forged))
    assert any("none of whole levels" in p for p in attack_problems(changed(part, "distance", 3, 0.1234)))
    other = replace(part, unit={**part.unit, "method": {**part.unit["method"], "white": 100}})
    assert any("its white is 100" in p for p in attack_problems(other))


def test_a_chosen_class_is_a_success_of_its_own(ask: Callable[..., str]) -> None:
    said = ask("--threat", "linf:30/255", *APGD, "--target", "3", "--keep", "all", out="aimed")
    assert "turned into 3" in said
    (part,) = parts("aimed")
    assert target(part) == 3
    success, label, prediction = (part.column(n) for n in ("success", "label", "prediction"))
    assert np.array_equal(success, (prediction == 3) & (label != 3))
    assert 0 < success.sum() < (label != 3).sum()
    (reached,) = subject("aimed").reached
    assert (reached.target, reached.rate.n) == (3, int((label != 3).sum()))
    assert reached.rate.value == success.sum() / (label != 3).sum()
    assert (subject("aimed").attacked, sound("aimed")) == ((), [])
    place = int(np.flatnonzero(~success & (label != 3))[0])
    assert any("contradicts" in p for p in attack_problems(changed(part, "success", place, True)))
    wrong = int(np.flatnonzero(success)[0])
    assert any("contradicts" in p for p in attack_problems(changed(part, "prediction", wrong, 4)))
    inner = {**part.unit["method"]["attack"], "threat": {"name": "linf", "eps": 0.3}}
    other = replace(part, unit={**part.unit, "method": {**part.unit["method"], "attack": inner}})
    assert any("attack inside has the threat" in p for p in attack_problems(other))
    outside = replace(part, unit={**part.unit, "method": {**part.unit["method"], "target": 10}})
    assert any("wants the class 10" in p for p in attack_problems(outside))


def test_a_suite_goes_towards_a_class_stage_by_stage(ask: Callable[..., str]) -> None:
    ask("--threat", "linf:30/255", "--suite", "fast", "--target", "3", "--eight-bit", out="suite")
    found = parts("suite")
    assert sorted(p.unit["stage"] for p in found) == [0, 1]
    assert {(target(p), white(p)) for p in found} == {(3, 255)}
    assert sound("suite") == []
    assert subject("suite").reached[0].white == 255


def test_eps50_is_the_median_of_the_nearest_errors(ask: Callable[..., str]) -> None:
    said = ask("--threat", "linf:2/255", *APGD, "--eps50", out="half")
    (half,) = subject("half").half_broken
    nearest = np.minimum.reduce([p.column("nearest") for p in parts("half")])
    right = parts("half")[0].column("clean_prediction") == parts("half")[0].column("label")
    assert half.eps50.value == np.median(nearest[right])
    assert (half.eps50.n, half.attacks, half.norm) == (int(right.sum()), ("fmn",), "linf")
    assert half.eps50.low < half.eps50.value < half.eps50.high
    assert "eps50 linf" in said
    assert summary([Path("half")])["subjects"][0]["half_broken"][0]["eps50"]["value"] == half.eps50.value


def test_a_class_is_named_or_numbered() -> None:
    assert class_of("cat", ("dog", "cat")) == class_of("1", ("dog", "cat")) == class_of(1, ("dog", "cat")) == 1
    with pytest.raises(HauberkError, match="no class 'cta'"):
        class_of("cta", ("dog", "cat"))
    with pytest.raises(HauberkError, match="number of another"):
        class_of("1", ("1", "0"))


def test_the_page_shows_levels_classes_and_the_size_that_breaks_half(ask: Callable[..., str]) -> None:
    ask("--threat", "linf:20/255", *APGD, "--eight-bit", out="drawn")
    ask("--threat", "linf:20/255", *APGD, "--target", "3", out="drawn")
    ask("--threat", "l2:1", *APGD, "--eps50", out="drawn")
    (found,) = collect.subjects(parts("drawn"))
    bare = replace(found.on_grid[0][1][0].methods[0], settings={"attack": None, "white": 255})
    assert words.inside([bare]) == "OnGrid"  # its own attack, which nobody named
    page = " ".join(re.sub(r"<[^>]+>", " ", render(collect.load([Path("drawn")]))).split())
    levels, half = found.on_grid[0][1][0], found.half_broken[0]
    said = page[page.index("Whole levels, chosen classes") :]
    assert f"attacked images are stored in 256 levels {words.percent(levels.accuracy.value, 'up')}" in said
    reached = words.percent(found.reached[0].rate.value, "down")
    assert f"Images of other classes that became 3 at ℓ∞, ε = 20/255 {reached}" in said
    assert words.half(half) in said and "beyond every search" not in words.half(half)
    numbers = {n.what: n for n in outcome(Run(Path("drawn"))).numbers}
    assert (numbers["on_grid"].value, numbers["on_grid"].by) == (levels.accuracy.value, "APGD, 256 levels")
    assert (numbers["reached"].value, numbers["reached"].by) == (found.reached[0].rate.value, "3, by APGD")
    assert f"broken within l2 {words.half(half)}, at most" in str(outcome(Run(Path("drawn"))))
    endless = replace(half, eps50=Interval(float("inf"), 1.0, float("inf"), 40))
    assert words.half(endless) == "beyond every search (1 to beyond every search)"
