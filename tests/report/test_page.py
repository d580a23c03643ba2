import dataclasses
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest

from hauberk import records
from hauberk.report import charts, collect, page, summary, words, write_report
from hauberk.runs import Run
from hauberk.statistics import Interval


class Reader(html.parser.HTMLParser):
    """Elements, attributes and texts of a page."""

    VOID = ("meta", "link", "img", "input", "br", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.texts, self.blocks, self.stack = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag, f"</{tag}> does not match"

    def handle_data(self, data):
        tag, attributes = self.stack[-1] if self.stack else ("", {})
        if tag == "script" and attributes.get("type") == "application/json":
            self.blocks.append((attributes["id"], data))
        elif tag not in ("script", "style") and data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def strict(text: str):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def written(lab, tmp_path_factory) -> str:
    return write_report(lab.runs, tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reader(written) -> Reader:
    return Reader(written)


def test_the_page_is_whole_and_small(written, reader) -> None:
    assert reader.stack == []
    assert len(written.encode()) < 2_500_000


def test_nothing_is_loaded_from_anywhere(written, reader) -> None:
    for tag, attributes in reader.elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
        assert not [name for name in attributes if name.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", written, re.S).group(1)
    assert "url(" not in style
    assert "@import" not in style
    [policy] = [a["content"] for t, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_every_data_block_is_json_and_every_anchor_has_a_target(reader) -> None:
    assert len(reader.blocks) >= 6
    for _, text in reader.blocks:
        strict(text)
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in reader.elements:
        for name in ("aria-labelledby", "for", "data-spec", "data-numbers"):
            assert attributes.get(name) is None or attributes[name] in ids
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids
    assert all(a.get("alt") for t, a in reader.elements if t == "img")


def test_the_numbers_are_those_of_the_records(lab, reader) -> None:
    x, y, _ = lab.data
    clean = lab.robust.logits(x).argmax(1) == y
    broken = np.zeros(len(y), dtype=bool)
    for weaken in (0.8, 1.0):  # the two attacks of the fixture
        broken |= lab.robust.logits(lab.robust.attack(x, y, 0.5 * weaken, "l2")).argmax(1) != y
    certified = clean & (lab.robust.radius(x) >= 0.5)
    n, held = len(y), int((clean & ~broken).sum())
    expected = (
        f"digits, test split, {n} images, 1 × 8 × 8 values in [0, 1], 10 classes "
        f"Clean accuracy {words.percent(clean.mean())}"
    )
    assert expected in reader.text
    assert f"{clean.sum()} of {n}, interval" in reader.text
    assert f"{held} of {n}, interval" in reader.text
    assert f"{certified.sum()} of {n}, interval" in reader.text
    between = f"lies between {words.percent(certified.mean(), 'down')} (proved) and {words.percent(held / n, 'up')}"
    assert between in reader.text
    assert f"of {n} images that were both attacked in ℓ₂ and certified by lipschitz, none was broken" in reader.text


def test_every_share_stands_beside_its_interval(written) -> None:
    shares = re.findall(r'<span class="number">[\d.–]+', written)
    assert len(shares) > 100
    both = re.findall(r'<span class="number">[^<]+</span>\s*<span class="span">[\d.]+ to [\d.]+', written)
    assert len(both) == len(shares)


def test_the_first_screen_says_whether_the_records_verify(lab, reader) -> None:
    wrong = {r.name for r in collect.load(lab.runs) if any(v.problems for v in r.verdicts)}
    assert wrong  # hand-made records have no evidence
    assert all(f"Verification of {name}:" in reader.text for name in wrong)
    assert "The records verify from their files alone" not in reader.text


def test_the_slider_gets_what_it_needs_to_count(lab, reader) -> None:
    [numbers] = [strict(text) for name, text in reader.blocks if name == "mix-1"]
    x, y, _ = lab.data
    for step in range(101):
        alpha = step / 100
        p = (1 - alpha) * lab.accurate.probabilities(x) + alpha * lab.robust.probabilities(x)
        assert numbers["clean"][step] == (p.argmax(1) == y).sum()
    assert (numbers["images"], numbers["steps"]) == (len(y), 100)
    assert [t["index"] for t in numbers["targets"]][:5] == [0, 1, 2, 3, 4]


def test_all_keys_of_records_are_listed(lab, reader) -> None:
    for run in lab.runs:
        for part in records.read_all(run / "records"):
            assert part.key in reader.text
    for word in words.GLOSSARY:
        assert word in reader.text


def test_the_summary_is_plain_json_and_says_the_same(lab) -> None:
    found = summary(lab.runs)
    assert strict(page.to_json(found)) == found
    subject = next(s for s in found["subjects"] if s["predictor"] == lab.robust.name)
    x, y, _ = lab.data
    assert subject["clean"]["value"] == (lab.robust.logits(x).argmax(1) == y).mean()
    assert {a["eps"] for a in subject["attacked"] if a["norm"] == "l2"} == set(lab.grid)
    assert len(found["runs"]) == 3
    path = {p["alpha"]: p for p in found["mixes"][0]["path"]}
    assert path[0.0]["clean_accuracy"]["value"] == (lab.accurate.logits(x).argmax(1) == y).mean()


def test_the_same_runs_give_the_same_bytes(lab, written, tmp_path) -> None:
    assert write_report(lab.runs, tmp_path / "again.html").read_text(encoding="utf-8") == written


# --- hostile and unusual runs ---------------------------------------------------------------------------------

EVIL = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a'b&c<d>e", "<!--"]


def rewritten(lab, folder: Path, facts=None, kinds=("attack", "certificate"), predictor=None, recipe=None) -> Path:
    run = Run.create(folder, recipe or {"name": "x", "data": {"name": "digits"}})
    for part in records.read_all(lab.runs[0] / "records"):
        if part.kind in kinds:
            unit = {**part.unit, **({"predictor": predictor} if predictor else {})}
            facts_here = {**part.facts, **(facts or {})}
            records.write(run.records, records.Part(part.kind, unit, facts_here, part.table))
    return folder


def test_hostile_strings_stay_text(lab, tmp_path) -> None:
    facts = {"classes": EVIL * 2, "dataset": EVIL[0]}
    recipe = {"name": EVIL[0], "note": EVIL[4], "data": {"name": "digits"}}
    run = rewritten(lab, tmp_path / "run", facts, ("attack",), EVIL[1], recipe)
    text = write_report([run], tmp_path / "r.html").read_text(encoding="utf-8")
    reader = Reader(text)
    assert [t for t, a in reader.elements if t == "script" and a.get("type") != "application/json"] == ["script"] * 2
    assert all(a["src"].startswith("data:") for t, a in reader.elements if t == "img")
    assert EVIL[0] in reader.text
    assert "{{ 7 * 7 }}" in reader.text
    for _, block in reader.blocks:
        strict(block)


def test_an_estimate_is_called_one(lab, tmp_path) -> None:
    run = rewritten(lab, tmp_path / "run", {"proof": "estimate"}, ("certificate",))
    reader = Reader(write_report([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    body = reader.text[: reader.text.rindex("What each number means")]
    assert "Estimated accuracy against radius" in body
    assert "prove nothing and bound nothing" in body
    assert "Certified accuracy" not in body
    found = summary([run])
    assert all(s["certified"] == [] for s in found["subjects"])


@pytest.mark.parametrize("kind", ["attack", "certificate"])
def test_half_of_the_records_make_a_page(lab, tmp_path, kind) -> None:
    run = rewritten(lab, tmp_path / "run", kinds=(kind,))
    reader = Reader(write_report([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    absent = {"attack": "Nothing is proved", "certificate": "No attack was run"}[kind]
    assert absent in reader.text


def test_a_contradiction_is_shouted(lab, tmp_path) -> None:
    run = Run.create(tmp_path / "run", {"name": "x", "data": {"name": "digits"}})
    for part in records.read_all(lab.runs[0] / "records", "attack"):
        records.write(run.records, part)
    certificate = next(
        p for p in records.read_all(lab.runs[0] / "records", "certificate") if p.unit["method"]["name"] == "lipschitz"
    )
    columns = {n: certificate.table.column(n).to_pylist() for n in certificate.table.column_names}
    columns["radius"] = [9.0] * certificate.table.num_rows
    records.write(run.records, records.part("certificate", certificate.unit, certificate.facts, columns))
    reader = Reader(write_report([run.path], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "Contradiction." in reader.text
    assert any(a.get("role") == "alert" for _, a in reader.elements)


# --- words and charts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "rounding", "text"), [
    (0.29, "down", "29.0 %"), (0.29, "up", "29.0 %"), (1 / 3, "down", "33.3 %"), (1 / 3, "up", "33.4 %"),
    (2 / 3, "down", "66.6 %"), (2 / 3, "near", "66.7 %"), (1.0, "up", "100.0 %"), (float("nan"), "near", "–"),
])
def test_bounds_are_rounded_to_the_safe_side(value, rounding, text) -> None:
    assert words.percent(value, rounding) == text


def test_every_count_of_a_thousand_keeps_its_percent() -> None:
    for k in range(1001):
        assert words.percent(k / 1000, "down") == words.percent(k / 1000, "up") == f"{k / 10:.1f} %"


def test_words_of_the_field() -> None:
    assert words.budget("linf", 8 / 255) == "ℓ∞, ε = 8/255"
    assert words.budget("l2", 0.5) == "ℓ₂, ε = 0.5"
    assert words.length(0.12399) == "0.123"
    assert words.span(Interval(0.5, 0.4449, 0.5551, 9)) == "44.4 to 55.6 %"
    assert words.settings({"steps": 20, "step_size": None, "targeted": False, "base": {"name": "x", "k": 2}}) == (
        "steps 20, base x (k 2)"
    )


def marks(spec, kind: str) -> list[dict]:
    return [layer for layer in spec["layer"] if layer["mark"]["type"] == kind]


def test_a_measurement_is_a_point_and_the_gap_stands_at_it_alone(lab) -> None:
    parts = [p for run in collect.load(lab.runs) for p in run.parts]
    subject = next(s for s in collect.subjects(parts) if s.predictor == lab.robust.name)
    attacked, curve = [a for a in subject.attacked if a.norm == "l2"], subject.curve("l2")
    spec = charts.accuracy_against_epsilon(subject.clean, attacked, curve)
    lines = [layer["data"]["name"] for layer in marks(spec, "line")]
    assert lines == ["certified"]  # nothing else holds beside where it was measured
    assert not marks(spec, "area")
    points = {layer["data"]["name"]: spec["datasets"][layer["data"]["name"]] for layer in marks(spec, "point")}
    assert [r["x"] for r in points["measured"]] == [a.eps for a in attacked]
    assert [(r["x"], r["value"]) for r in points["clean"]] == [(0.0, subject.clean.value)]
    gap = spec["datasets"]["gap"]
    assert [(r["x"], r["low"], r["high"]) for r in gap] == [
        (a.eps, curve.at(a.eps).value, a.accuracy.value) for a in attacked
    ]
    assert all(r["low"] <= r["high"] for r in gap)
    elsewhere = [*attacked[:-1], dataclasses.replace(attacked[-1], images="other")]
    spec = charts.accuracy_against_epsilon(subject.clean, elsewhere, curve)
    assert [r["x"] for r in spec["datasets"]["gap"]] == [a.eps for a in attacked[:-1]]


def test_a_curve_is_exact_at_every_radius(lab) -> None:
    parts = [p for run in collect.load(lab.runs) for p in run.parts]
    curve = next(s for s in collect.subjects(parts) if s.predictor == lab.robust.name).curve("l2")
    x, y, _ = lab.data
    right, radius = lab.robust.logits(x).argmax(1) == y, lab.robust.radius(x)
    for eps in (0.0, 1e-9, *np.linspace(0, radius.max(), 97), *radius[:9], radius.max() + 1):
        assert curve.at(float(eps)).value == (right & (radius >= eps)).mean()


def test_a_thinned_staircase_is_never_above_the_exact_one() -> None:
    draws = np.random.default_rng(0)
    edges = np.sort(draws.random(5000))
    steps = [collect.Level(float(e), Interval(1 - k / 5000, 0.0, 1.0, 5000)) for k, e in enumerate(edges)]
    few = charts.thinned(steps, 200)
    assert len(few) == 200
    assert charts.thinned(steps[:200], 200) == steps[:200]

    def at(staircase, eps: float) -> float:
        return [s.accuracy.value for s in staircase if s.eps <= eps][-1]

    for eps in draws.uniform(edges[0], 1, 200):
        assert at(few, eps) <= at(steps, eps) <= at(few, eps) + 2 / 200


def test_the_library_is_one_script() -> None:
    script = charts.library()
    assert "</script" not in script
    assert "vegaEmbed" in script
    assert len(script) < 1_200_000
