"""Runs against each other: who is compared with whom, on which images, under which attacks, and what may be said."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hauberk import records
from hauberk.comparison import compare, tables
from hauberk.errors import HauberkError
from hauberk.runs import Run
from hauberk.statistics import holm, paired_difference, student
from hauberk.threats import Linf

N = 400
APGD = {"name": "apgd", "steps": 50, "loss": "ce", "restarts": 1}
COMMON = {"data": "d" * 16, "seed": 0, "tile": 64, "dtype": "float32"}
FACTS = {"dataset": "digits", "split": "test", "classes": ["0", "1"], "shape": [1, 2, 2]}


def attack(name: str, right, stands, method=APGD, suite=None, labels=None, first: int = 0) -> records.Part:
    """One attack at Linf 8/255 on images that are numbered from ``first``."""
    right, stands = np.asarray(right, bool), np.asarray(stands, bool)
    labels = np.zeros(len(right), int) if labels is None else labels
    threat = {"name": "linf", "eps": 8 / 255}
    unit = {"predictor": name, "weights": records.content_hash(name), "threat": threat, **COMMON,
            "method": {**method, "threat": threat}} | ({"suite": suite, "stage": 0} if suite else {})
    return records.part("attack", unit, {**FACTS, "stochastic": False}, {
        "id": first + np.arange(len(right)), "label": labels, "clean_prediction": np.where(right, labels, 1 - labels),
        "prediction": np.where(stands, labels, 1 - labels), "success": ~(right & stands),
    })  # fmt: skip


def certificate(name: str, right, radius, norm: str = "linf", proof: str = "deterministic") -> records.Part:
    right = np.asarray(right, bool)
    unit = {"predictor": name, "weights": records.content_hash(name), "method": {"name": "lipschitz"}, **COMMON}
    facts = {**FACTS, "norm": norm, "proof": proof, "failure_probability": 0.0, "shared": {}}
    return records.part("certificate", unit, facts, {
        "id": np.arange(len(right)), "label": np.zeros(len(right), int), "prediction": np.where(right, 0, 1),
        "radius": radius, "evidence": ["{}"] * len(right),
    })  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write a run of some parts, whose own predictor is that of the first."""

    def made(name: str, *parts: records.Part, **recipe) -> Path:
        run = Run.create(tmp_path / name, {"name": "net", "model": {"name": "small_cnn"}, "data": {}, **recipe})
        run.update(predictor=parts[0].unit["predictor"])
        for part in parts:
            records.write(run.records, part)
        return run.path

    return made


def bits(seed: int, share: float, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).random(n) < share


def effect(found, of: str, *against: str, one: str | None = None):
    return next(j for j in found.judged if j.effect.quantity.kind == of and j.effect.against == against
                and one in (None, j.effect.one))  # fmt: skip


def test_two_runs_on_the_images_that_both_have(make) -> None:
    right, stands = [bits(1, 0.9), bits(2, 0.8)], [bits(3, 0.6), bits(4, 0.4)]
    a = make("a", attack("A", right[0], stands[0]), certificate("A", right[0], np.where(bits(5, 0.5), 0.1, 0.0)))
    b = make("b", attack("B", right[1][100:], stands[1][100:], first=100), certificate("B", right[1], np.full(N, 0.01)))
    found = compare([a, b])
    assert [str(q) for q in found.quantities] == ["clean", "attacked linf 8/255", "certified linf 8/255"]
    kept = [r & s for r, s in zip(right, stands, strict=True)]
    interval, p = paired_difference(kept[0][100:], kept[1][100:])
    attacked = effect(found, "attacked", "b")
    assert (attacked.effect.interval, attacked.effect.p) == (interval, p)
    assert attacked.effect.interval.n == N - 100
    assert attacked.corrected == holm([j.effect.p for j in found.judged])[found.judged.index(attacked)]
    assert (attacked.verdict, found.refused) == ("higher", ())
    certified = effect(found, "certified", "b").effect.interval
    assert certified.value == pytest.approx((right[0] & bits(5, 0.5)).mean())  # b proves 0.01 alone


def test_a_verdict_needs_the_corrected_value(make) -> None:
    rows = np.arange(N)
    a = make("a", attack("A", rows >= 0, rows >= 0))
    b = make("b", attack("B", rows >= 7, rows >= 0))  # p is 0.0156 alone, and twice that with two comparisons
    verdicts = {c: compare([a, b], confidence=c).judged[0].verdict for c in (0.95, 0.97)}
    assert verdicts == {0.95: "higher", 0.97: "not told apart"}


def test_seeds_are_pooled_where_the_names_say_so(make) -> None:
    cells = {(name, seed): bits(10 * seed + len(name), share)
             for name, share in (("one", 0.9), ("other", 0.8)) for seed in range(3)}  # fmt: skip
    runs = [make(f"{name}-seed{seed}", attack(f"{name}{seed}", right, right), seed=seed)
            for (name, seed), right in cells.items()]  # fmt: skip
    found = compare(runs)
    assert [(c.name, c.seeds) for c in found.contestants] == [("one", (0, 1, 2)), ("other", (0, 1, 2))]
    clean = effect(found, "clean", "other").effect
    gaps = np.array([cells["one", s].astype(float) - cells["other", s] for s in range(3)])
    images, seeds = student(gaps.mean(0)), student(gaps.mean(1))
    assert (clean.interval, clean.over_seeds) == (images[0], seeds[0])
    assert clean.p == max(images[1], seeds[1])
    assert tables.plain(found)["runs"][0]["seeds"] == [0, 1, 2]
    alone = compare([*runs[:3], runs[3]]).judged[0].effect
    assert alone.over_seeds is None
    assert alone.interval.value == pytest.approx(gaps.mean() + np.mean([cells["other", s] for s in range(3)])
                                                 - cells["other", 0].mean())  # fmt: skip


def test_seeds_of_other_recipes_are_refused(make) -> None:
    right = bits(0, 0.9)
    runs = [make(f"net-seed{s}", attack(f"N{s}", right, right), seed=s, model={"name": f"m{s}"}) for s in range(2)]
    with pytest.raises(HauberkError, match="named as seeds of one recipe, but differ in model"):
        compare(runs)


def test_a_copy_is_no_other_seed(make) -> None:
    right = bits(0, 0.9)
    runs = [make(f"net-seed{s}", attack("N", right, right), seed=s) for s in range(2)]
    with pytest.raises(HauberkError, match="net-seed0 and net-seed1 are named as two seeds and have the same weights"):
        compare(runs)


def test_runs_that_were_not_attacked_alike_are_refused_or_shown_without_a_verdict(make) -> None:
    a = make("a", attack("A", bits(0, 0.9), bits(1, 0.9)))
    b = make("b", attack("B", bits(2, 0.9), bits(3, 0.2), {**APGD, "steps": 100}))
    found = compare([a, b])
    assert {j.effect.quantity.kind for j in found.judged} == {"clean"}
    assert "not attacked alike" in found.refused[0]
    assert "steps=50" in found.refused[0]
    assert "steps=100" in found.refused[0]
    assert effect(compare([a, b], unlike=True), "attacked", "b").verdict == "none: attacked differently"


@pytest.mark.parametrize(("share", "verdict"), [(0.9, "higher"), (0.1, "none: attacked differently")])
def test_the_run_that_met_more_attacks_can_win_and_cannot_lose(share: float, verdict: str, make) -> None:
    right, more = bits(0, 0.9), {"name": "part", "part": "robust", "attack": APGD}
    a = make("a", attack("A", right, bits(1, share)), attack("A", right, right, more))
    b = make("b", attack("B", right, bits(2, 0.5)))
    assert effect(compare([a, b]), "attacked", "b").verdict == verdict
    turned = {"higher": "lower"}.get(verdict, verdict)
    assert effect(compare([b, a]), "attacked", "a").verdict == turned


def test_losses_that_a_suite_adds_for_a_model_are_more_attacks(make) -> None:
    suite = {"name": "autoattack", "version": "standard", "attacks": []}
    right = bits(0, 0.9)
    a = make("a", attack("A", right, bits(1, 0.1), suite={**suite, "losses": [{"name": "alpha_down"}]}))
    b = make("b", attack("B", right, bits(2, 0.5), suite={**suite, "losses": []}))
    found = effect(compare([a, b]), "attacked", "b")
    assert (found.effect.more, found.effect.fewer, found.verdict) == (True, False, "none: attacked differently")


def test_early_stopping_is_no_other_attack(make) -> None:
    a = make("a", attack("A", bits(0, 0.9), bits(1, 0.9), {**APGD, "early_stop": True}))
    b = make("b", attack("B", bits(0, 0.9), bits(2, 0.2), {**APGD, "early_stop": False, "eot": None}))
    assert effect(compare([a, b]), "attacked", "b").verdict == "higher"


def test_the_line_between_two_runs(make) -> None:
    easy, hard = bits(0, 0.95), bits(1, 0.6)
    ends = [make("accurate", attack("A", easy, bits(2, 0.02))), make("robust", attack("R", hard, bits(3, 0.8)))]
    coin = bits(4, 0.5)
    tossed = [np.where(coin, *pair) for pair in ((easy, hard), (easy & bits(2, 0.02), hard & bits(3, 0.8)))]
    mixes = [make("coin", attack("C", tossed[0], tossed[1])), make("good", attack("G", easy, hard))]
    found = compare(mixes, line=tuple(ends))
    heights = {j.effect.one: j for j in found.judged if len(j.effect.against) == 2}
    assert set(heights) == {"coin", "good"}
    assert heights["coin"].effect.interval.low < 0.0 < heights["coin"].effect.interval.high
    assert (heights["coin"].verdict, heights["good"].verdict) == ("not told apart", "above")
    assert heights["good"].effect.interval.value == pytest.approx((easy & hard).mean() - (easy & bits(2, 0.02)).mean())


def test_no_line_between_runs_of_equal_clean_accuracy(make) -> None:
    ends = [make(name, attack(name, bits(k, 0.8), bits(5, 0.5))) for k, name in enumerate("ab")]
    found = compare([make("c", attack("C", bits(7, 0.8), bits(8, 0.5)))], line=tuple(ends))
    assert "there is no line between a and b" in found.refused[0]


def test_estimates_are_not_compared(make) -> None:
    right = bits(0, 0.9)
    runs = [make(n, certificate(n, right, np.full(N, 1.0), proof="estimate"), attack(n, right, right)) for n in "ab"]
    assert {j.effect.quantity.kind for j in compare(runs).judged} == {"clean", "attacked"}


def test_budgets_may_be_chosen(make) -> None:
    right = bits(0, 0.9)
    runs = [make(n, certificate(n, right, np.full(N, 0.2))) for n in "ab"]
    assert [str(q) for q in compare(runs).quantities] == ["clean"]
    assert [str(q) for q in compare(runs, [Linf(0.1)]).quantities] == ["clean", "certified linf 0.1"]


def test_other_data_no_common_image_and_other_labels_are_refused(make) -> None:
    a = make("a", attack("A", bits(0, 0.9), bits(1, 0.5)))
    far = make("far", attack("F", bits(0, 0.9), bits(1, 0.5), first=N))
    turned = make("turned", attack("T", bits(0, 0.9), bits(1, 0.5), labels=np.ones(N, int)))
    other = attack("O", bits(0, 0.9), bits(1, 0.5))
    other = make("other", dataclasses.replace(other, facts={**other.facts, "dataset": "cifar10"}))
    for rival, said in ((far, "share no image"), (turned, "has the label 0 in a and 1"), (other, "digits/test")):
        with pytest.raises(HauberkError, match=said):
            compare([a, rival])
    with pytest.raises(HauberkError, match="named twice"):
        compare([a, a.parent / "a"])
    with pytest.raises(HauberkError, match="two models or more"):
        compare([a])


def test_a_run_with_two_predictors_is_two_contestants(make) -> None:
    right = bits(0, 0.9)
    smooth = certificate("smoothed(sigma=0.5, net[0123456789abcdef])", right, np.full(N, 0.1))
    run = make("net", attack("net[0123456789abcdef]", right, right), smooth)
    names = [c.name for c in compare([run, make("b", attack("B", right, right))]).contestants]
    assert names == ["net", "net: smoothed(sigma=0.5, net)", "b"]


def test_the_page_says_how_and_with_what_correction(make) -> None:
    a = make("a", attack("A", bits(0, 0.9), bits(1, 0.9)))
    b = make("b", attack("B", bits(2, 0.9), bits(3, 0.2)))
    found = compare([a, b])
    page = tables.page(found)
    for words in ("| attacked linf 8/255, at most | a | ", "apgd,steps=50,loss=ce,restarts=1", "2 comparisons (Holm)"):
        assert words in page
    assert next(iter(tables.lines(found))) == "clean"
    plain = tables.plain(found)
    assert plain["comparisons"][1]["verdict"] == "higher"
    assert plain["comparisons"][1]["threat"] == {"norm": "linf", "eps": 8 / 255}


def test_runs_may_be_compared_with_some_alone(make) -> None:
    runs = [make(name, attack(name, bits(k, 0.9), bits(k, 0.5))) for k, name in enumerate("abcd")]
    found = compare(runs[1:], against=runs[:1])
    assert {(j.effect.one, *j.effect.against) for j in found.judged} == {("b", "a"), ("c", "a"), ("d", "a")}
    lined = compare(runs[:3], line=(runs[0], runs[1]), against=[runs[3]])
    assert {frozenset((j.effect.one, *j.effect.against)) for j in lined.judged if len(j.effect.against) == 1} == {
        frozenset(pair) for pair in ("ab", "ac", "ad", "bc", "bd", "cd")
    }


def test_one_shared_image_of_pooled_seeds_says_nothing_and_is_json(make) -> None:
    one = [make(f"one-seed{s}", attack(f"O{s}", [True], [True]), seed=s) for s in range(2)]
    other = make("other", attack("A", [False], [False]))
    found = compare([*one, other])
    plain = json.loads(json.dumps(tables.plain(found), allow_nan=False))
    assert plain["comparisons"][0]["difference"] == {"value": 1.0, "low": None, "high": None, "n": 1}
    assert {c["verdict"] for c in plain["comparisons"]} == {"not told apart"}
    assert "inf" in tables.page(found)


def test_the_verb_writes_for_people_pages_and_programs(make, hauberk) -> None:
    right = bits(0, 0.9)
    a, b = (make(name, attack(name, right, bits(k, share))) for k, (name, share) in enumerate((("a", 0.9), ("b", 0.2))))
    code, said, _ = hauberk("compare", a, b, "--threat", "linf:8/255")
    assert code == 0
    assert "a less b: " in said
    assert ": higher" in said
    code, said, _ = hauberk("compare", a, b, "--format", "md")
    assert said.count("| --- ") == len(tables.SHARES) + len(tables.EFFECTS)
    code, said, _ = hauberk("compare", a, b, "--format", "json", "--line", a, b, "--level", "0.9")
    assert (json.loads(said)["confidence"], code) == (0.9, 0)
    for words in (["--format", "html"], ["--level", "95"], ["--threat", "l2"]):
        code, _, error = hauberk("compare", a, b, *words)
        assert (code, "error:" in error) == (1, True)


def test_verdicts_hold_together() -> None:
    """Of many comparisons of equal models hardly ever one is told apart."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        p = [paired_difference(*(rng.random((2, 60)) < 0.5))[1] for _ in range(6)]
        wrong += min(holm(p)) <= 0.05
    assert stats.binom.sf(wrong - 1, 200, 0.05) > 0.01
