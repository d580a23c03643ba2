"""The trade-off explorer: what is counted, what is called what, which command is printed."""

import dataclasses
import html
import json
import re
import shlex

import numpy as np
import pytest

from hauberk.report import collect, explorer, mixing, summary, write_report


def read(runs, path):
    """The page's mix section as text, its numbers, and the whole page."""
    page = write_report(runs, path).read_text(encoding="utf-8")
    numbers = json.loads(re.search(r'<script type="application/json" id="mix-1">(.*?)</script>', page, re.S)[1])
    section = re.search(r'<section class="mix".*?</details>\n</section>', page, re.S)[0]
    words = re.sub(r"<script.*?</script>|<[^>]*>", " ", section, flags=re.S)
    return " ".join(html.unescape(words).split()), numbers, page


def mixes(runs):
    parts = [p for run in collect.load(runs) for p in run.parts]
    return mixing.mixes(parts, collect.subjects(parts))


@pytest.fixture(scope="module")
def proved(lab, tmp_path_factory):
    return read(lab.runs, tmp_path_factory.mktemp("p") / "r.html")


@pytest.fixture(scope="module")
def bare(unproved, tmp_path_factory):
    return read(unproved.runs, tmp_path_factory.mktemp("p") / "r.html")


@pytest.fixture(scope="module")
def bare_mix(unproved):
    [found] = mixes(unproved.runs)
    return found


# --- words ----------------------------------------------------------------------------------------------------


def test_exact_measured_and_estimated_have_a_sentence_each(lab, proved) -> None:
    assert f"Exact: clean and certified accuracy at every α, counted on these {len(lab.data[1])} images." in proved[0]
    assert "Measured: attacked accuracy, at the dots alone" in proved[0]
    assert "Estimated: the dashed line" in proved[0]
    assert "it bounds nothing." in proved[0]


def test_without_a_proof_nothing_is_called_certified(bare, bare_mix) -> None:
    text, numbers, _ = bare
    assert "ertif" not in text
    assert "Exact: clean accuracy at every α" in text
    assert "nothing is proved about attacks" in text
    assert "Estimated under attack, ℓ∞, ε = 16/255" in text
    assert (numbers["needed"], bare_mix.eps, bare_mix.norm) == ([], (), "")
    assert all(t["index"] is None for t in numbers["targets"])
    assert not [t for t in numbers["targets"] if "ertif" in t["label"]]


def test_any_other_proof_than_a_deterministic_one_is_none(lab, unproved, tmp_path) -> None:
    parts = [p for run in collect.load(lab.runs) for p in run.parts]
    [part] = [p for p in parts if p.kind == "mix"]
    other = type(part)(part.kind, part.unit, {**part.facts, "proof": "estimate"}, part.table)
    [found] = mixing.mixes([other], [])
    assert (found.eps, found.norm, found.proof, found.dots, found.estimates) == ((), "", "none", (), ())
    view = explorer.view(found, [], {})
    assert [t["label"] for t in view.numbers["targets"]] == ["nothing measured yet"]
    assert not view.joined


# --- counts ---------------------------------------------------------------------------------------------------


def test_the_script_gets_every_estimate_at_every_step(proved, lab) -> None:
    _, numbers, _ = proved
    [mix] = mixes(lab.runs)
    for target in numbers["targets"]:
        if target["estimate"] is None:
            assert "estimated" not in target["label"]
            continue
        assert "estimated" in target["label"]
        guess, own = numbers["estimates"][target["estimate"]], mix.estimates[target["estimate"]]
        assert len(guess["needed"]) == numbers["steps"] + 1  # however many images there are
        for step in range(50, 101):
            assert guess["needed"][step] / guess["images"] == pytest.approx(own.accuracy(step / 100).value)


def test_the_budget_shown_first_is_one_of_which_most_is_known(proved) -> None:
    _, numbers, _ = proved
    chosen = numbers["targets"][numbers["target"]]
    assert chosen["label"] == "ℓ₂, ε = 0.5 (certified, attacked and estimated)"


def test_cards_say_what_the_mix_does_at_every_alpha(lab, proved) -> None:
    _, numbers, page = proved
    x, y, ids = lab.data
    pictures = re.findall(r'<li data-picture="picture-(\d+)-(\d+)">', page)
    assert len(numbers["cards"]) == len(pictures) == 9
    assert all(f'id="picture-{n}-{i}"' in page for n, i in pictures)
    g, h = lab.accurate.probabilities(x), lab.robust.probabilities(x)
    [mix] = mixes(lab.runs)
    for card, (_, i) in zip(numbers["cards"], pictures, strict=True):
        row = ids.tolist().index(int(i))
        assert card["accurate"] == (g[row].argmax() == y[row])
        assert card["robust"] == (h[row].argmax() == y[row])
        assert card["needed"] == list(mix.certified[row])
        assert card["estimates"] == [e.needed[row] for e in mix.estimates]
        for alpha in np.linspace(0, 1, 101):
            right = ((1 - alpha) * g[row] + alpha * h[row]).argmax() == y[row]
            assert (card["low"] < alpha < card["high"]) == right


@pytest.mark.parametrize(("right", "said"), [
    (None, "right at no α"), ((-1.0, 2.0), "right at every α"), ((0.514, 2.0), "right for α above 0.51"),
    ((-1.0, 0.5), "right for α below 0.50"), ((0.25, 0.75), "right for α between 0.25 and 0.75"),
])
def test_intervals_in_words(right, said) -> None:
    assert explorer.span(right) == said


def test_the_summary_keeps_estimates_apart(unproved) -> None:
    [found] = summary(unproved.runs)["mixes"]
    assert found["proof"] == "none"
    assert [(e["norm"], e["eps"]) for e in found["estimated"]] == [("linf", 8 / 255), ("linf", 16 / 255)]
    for step in found["path"]:
        assert step["certified_accuracy"] == []
        assert len(step["estimated_attacked_accuracy"]) == 2
        assert (step["estimated_attacked_accuracy"][0]["value"] is None) == (step["alpha"] < 0.5)


def test_the_table_has_few_radii_and_prefers_those_that_were_attacked(lab) -> None:
    [mix] = mixes(lab.runs)
    many = tuple(round(0.05 * k, 2) for k in range(41))
    wide = dataclasses.replace(mix, eps=many, certified=tuple((None,) * 41 for _ in mix.ids))
    exact, *guesses = explorer.view(wide, [], {}).tables
    shown = [float(c.title.rpartition(" ")[2]) for c in exact[1:]]
    assert set(lab.grid) < set(shown)
    assert len(shown) == 5
    assert all(len(columns) <= 6 for columns in guesses)
    assert sum(map(len, guesses)) == len(mix.estimates)


def test_names_of_near_dots_stand_above_each_other(bare) -> None:
    target = next(t for t in bare[1]["targets"] if t["where"].endswith("16/255"))
    assert sorted(d["slot"] for d in target["dots"] if d["kind"] == "other") == [0, 1, 2]


# --- measured mixes -------------------------------------------------------------------------------------------


def test_other_mixes_of_the_two_models_are_dots_with_their_own_names(unproved, bare_mix, bare) -> None:
    strongest = {d.label: d for d in bare_mix.dots if d.eps == 16 / 255}
    assert {label: d.alpha for label, d in strongest.items()} == {
        "accurate alone": 0.0, "robust alone": 1.0, "α = 0.8": 0.8, "mixing network 0.84..0.99": None,
        "MixedNUTS 0.75": None, "α = 0.9, scales 1 and 4": None,
    }  # fmt: skip
    assert unproved.names["turned"] not in {d.predictor for d in bare_mix.dots}
    target = next(t for t in bare[1]["targets"] if t["where"].endswith("16/255"))
    assert sorted(d["kind"] for d in target["dots"]) == ["accurate", "mix", "other", "other", "other", "robust"]
    assert all(d["xlow"] <= d["x"] <= d["xhigh"] and d["ylow"] <= d["y"] <= d["yhigh"] for d in target["dots"])


def test_mixes_with_other_scales_are_another_path(lab) -> None:
    parts = [p for run in collect.load(lab.runs) for p in run.parts]
    [part] = [p for p in parts if p.kind == "mix"]
    named = part.unit["predictor"].replace("alpha=0.8, ", "alpha=0.8, scales=1.0/4.0, ")
    other = type(part)(part.kind, {**part.unit, "predictor": named}, part.facts, part.table.slice(1))
    found = {m.scales: m for m in mixing.mixes([part, other], collect.subjects(parts))}
    assert set(found) == {(1.0, 1.0), (1.0, 4.0)}
    assert "α = 0.8" in {d.label for d in found[1.0, 1.0].dots}
    assert "α = 0.8, scales 1 and 1" in {d.label for d in found[1.0, 4.0].dots}


# --- the command ----------------------------------------------------------------------------------------------


def test_the_command_names_the_runs_and_the_scales(unproved, bare_mix, bare) -> None:
    typed = shlex.split("0.84".join(bare[1]["command"]))
    assert typed == ["hauberk", "mix", "--accurate", "accurate", "--robust", "robust one", "--alpha", "0.84"]
    assert "'robust one'" in bare[0]
    scaled = dataclasses.replace(bare_mix, scales=(1.0, 8.0))
    assert explorer.command(scaled, {})[1] == " --robust-scale 8.0"
    scaled = dataclasses.replace(bare_mix, scales=(0.5, 1.0))
    assert explorer.command(scaled, {})[1] == " --accurate-scale 0.5"


def test_a_hostile_folder_stays_one_word(bare_mix) -> None:
    evil = "x; rm -rf ~ $(id) '"
    typed = shlex.split("0.5".join(explorer.command(bare_mix, {bare_mix.accurate: evil, bare_mix.robust: "r"})))
    assert typed[3] == evil


def test_a_run_that_is_not_on_the_page_is_named_as_such(proved) -> None:
    text, numbers, _ = proved
    assert "--accurate ACCURATE_RUN --robust ROBUST_RUN" in numbers["command"][0]
    assert "ROBUST_RUN stands for the run of LipConvNet[a1b2c3d4], which is not on this page." in text
