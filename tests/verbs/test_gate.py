"""The gate: what passes, what fails, what cannot be told, and which exit code each has."""

import itertools
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from hauberk.comparison.contestant import Quantity, read
from hauberk.comparison.drop import ALPHA
from hauberk.comparison.requirement import Finding, parse
from hauberk.errors import HauberkError
from hauberk.records import Part
from hauberk.report import collect
from hauberk.report.collect import RunFacts
from hauberk.report.subject import preference
from hauberk.verbs import gate as verb
from hauberk.verbs.gate import gate

RESULTS = Path(__file__).resolve().parents[2] / "results"
Typed = Callable[..., tuple[int, str, str]]


def one(run: Path, text: str, **how: object) -> Finding:
    (found,) = gate(run, [parse(text)], **how)  # type: ignore[arg-type]
    return found


@pytest.fixture
def diagnosed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give the run a judgement of its attack."""

    def judge(verdict: str, eps: float = 0.5) -> None:
        finding = collect.Finding("transfer", 1.0, 0.5, verdict, "a copy was broken more often")
        judgement = collect.Judgement("apgd", "l2", eps, verdict, (finding,), 64)
        monkeypatch.setattr(collect, "judgements", lambda _: [judgement])

    return judge


# --- what is typed ------------------------------------------------------------------------------------------------


def test_requirements_are_read() -> None:
    plain = parse("certified@l2:0.25 >= 60%")
    assert (plain.quantity.kind, plain.quantity.norm, plain.quantity.eps) == ("certified", "l2", 0.25)
    assert (plain.number, plain.lower, plain.over, plain.radius) == (0.6, False, "all", False)
    whole = parse("lower(worst(robust@linf:8/255))>=0.1")
    assert (whole.quantity.kind, whole.quantity.eps, whole.lower, whole.over) == ("attacked", 8 / 255, True, "worst")
    assert parse("balanced>=0.5").quantity.kind == "clean"
    assert parse("balanced(clean)>=0.5").over == "balanced"
    assert parse("acr@l2>=1.5").radius


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clean", "MEASURE>=NUMBER"),
        ("clean>0.5", "MEASURE>=NUMBER"),
        ("clean<=0.5", "MEASURE>=NUMBER"),
        ("clean>=80", "80 percent is 0.8"),
        ("clean>=0", "above 0"),
        ("clean>=nan", "MEASURE>=NUMBER"),
        ("clean@l2:1>=0.5", "no measure"),
        ("robust>=0.5", "no measure"),
        ("certifed@l2:1>=0.5", "did you mean 'certified'"),
        ("lower(certified@l2:1>=0.5)", "MEASURE>=NUMBER"),
        ("upper(clean)>=0.5", "no measure"),
        ("worst(acr@l2)>=0.5", "no classes"),
        ("acr@l7>=0.5", "l1, l2 or linf"),
        ("acr@l2>=50%", "no percentage"),
        ("robust@lint:8/255>=0.5", "linf"),
    ],
)
def test_a_mistyped_requirement_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(HauberkError) as caught:
        parse(text)
    assert said in f"{caught.value.message}; {caught.value.hint}"


def test_the_commands_of_the_documentation_are_accepted() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    page = (docs / "gate.md").read_text() + (docs / "how-to" / "gate_in_ci.md").read_text()
    blocks = re.findall(r"```(yaml)?\S*[^\n]*\n(.*?)```", page, re.DOTALL)
    assert all(yaml.safe_load(text) for kind, text in blocks if kind)
    lines = [line.partition("hauberk gate ") for line in page.splitlines() if "hauberk gate r" in line]
    commands = [words.split("||")[0] for _, _, words in lines]
    required = [w for text in commands for a, w in itertools.pairwise(shlex.split(text)) if a == "--require"]
    assert len(commands) >= 8 and len(required) >= 9
    assert all(parse(text) for text in required)


# --- verdicts -----------------------------------------------------------------------------------------------------


def test_the_estimate_or_its_lower_limit_must_reach_the_number(tiny_run: Path) -> None:
    value = collect.subjects(collect.load([tiny_run])[0].parts)[0].clean
    between = (value.value + value.low) / 2.0
    assert one(tiny_run, f"clean>={between}").verdict == "pass"
    found = one(tiny_run, f"lower(clean)>={between}")
    assert (found.verdict, "its lower limit is below" in found.reason) == ("fail", True)
    assert one(tiny_run, f"clean>={value.value}").verdict == "pass"
    assert one(tiny_run, f"lower(clean)>={value.low}").verdict == "pass"


def test_what_no_record_says_cannot_be_told_and_names_the_command_that_would(tiny_run: Path) -> None:
    found = one(tiny_run, "robust@linf:8/255>=0.1")
    assert (found.verdict, found.missing) == ("cannot tell", ("attack", str(tiny_run), "--threat", "linf:8/255"))
    found = one(tiny_run, "certified@l1:1>=0.1")
    assert (found.verdict, found.missing[2:]) == ("cannot tell", ("--method", "lipschitz", "--norm", "l1"))
    nothing = one(RESULTS / "cifar10" / "pgd_cifar10_small-seed0", "certified@linf:2/255>=0.1")
    assert (nothing.missing, "nothing here proves anything in linf" in nothing.reason) == ((), True)


def test_a_robust_accuracy_is_an_upper_bound(tiny_run: Path, diagnosed: Callable[..., None]) -> None:
    found = one(tiny_run, "robust@l2:0.5>=0.01")
    assert found.verdict == "cannot tell"
    assert found.missing == ("check", str(tiny_run), "--threat", "l2:0.5", "--diagnose")
    assert one(tiny_run, "robust@l2:0.5>=0.01", allowed=["undiagnosed"]).verdict == "pass"
    for verdict in ("questionable", "broken"):
        diagnosed(verdict)
        found = one(tiny_run, "robust@l2:0.5>=0.01")
        assert (found.verdict, f"evaluation is {verdict}: a copy was" in found.reason) == ("cannot tell", True)
        assert one(tiny_run, "robust@l2:0.5>=0.01", allowed=["undiagnosed"]).verdict == "cannot tell"
        assert one(tiny_run, "robust@l2:0.5>=0.01", allowed=[verdict]).verdict == "pass"
        high = one(tiny_run, "robust@l2:0.5>=0.999")  # a broken attack's successes are successes
        assert (high.verdict, "no attack makes it higher" in high.reason) == ("fail", True)
    diagnosed("sound", eps=1.0)
    assert one(tiny_run, "robust@l2:0.5>=0.01").verdict == "cannot tell"  # at another budget
    diagnosed("sound")
    found = one(tiny_run, "robust@l2:0.5>=0.01")
    assert (found.verdict, "proves nothing of other attacks" in found.reason) == ("pass", True)


def test_numbers_are_those_of_the_report(tiny_run: Path) -> None:
    subject = collect.subjects(collect.load([tiny_run])[0].parts)[0]
    facts = collect.load([tiny_run])[0]
    level = next(x for x in subject.certified[0].levels if x.eps == 0.5)
    for text, expected in (
        ("clean>=0.5", subject.clean), ("robust@l2:0.5>=0.5", subject.attacked[0].accuracy),
        ("certified@l2:0.5>=0.5", level.accuracy), ("acr@l2>=0.5", subject.certified[0].mean_radius),
    ):  # fmt: skip
        found = verb._measured(verb._Judged(facts, tiny_run, "", ()), parse(text))
        assert isinstance(found, verb._Measured) and found.value == expected


def test_classes_are_looked_at_one_by_one() -> None:
    labels = np.array([0] * 8 + [1] * 2)
    held = np.array([True] * 8 + [True, False])
    part = type("Part", (), {"column": lambda self, name: {"id": np.arange(10), "label": labels}[name]})()
    balanced = verb._share([part], np.arange(10), held, parse("balanced>=0.5"))
    worst = verb._share([part], np.arange(10), held, parse("worst>=0.5"))
    assert (balanced.value, worst.value, worst.n) == (0.75, 0.5, 2)
    assert balanced.low < 0.75 < balanced.high


def test_records_that_do_not_verify_tell_nothing(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (facts,) = collect.load([tiny_run])

    def forged(paths: list[Path]) -> list[RunFacts]:
        first, *others = facts.verdicts
        return [replace(facts, verdicts=(replace(first, problems=["row 3 is forged"]), *others))]

    monkeypatch.setattr(collect, "load", forged)
    found = one(tiny_run, "clean>=0.01")
    assert (found.verdict, "row 3 is forged" in found.reason) == ("cannot tell", True)


def test_requirements_that_two_predictors_meet_are_not_met_by_one(hauberk: Typed) -> None:
    run = RESULTS / "cifar10" / "pgd_cifar10_small-seed0"
    both = [parse("clean>=0.5"), parse("certified@l2:0.15>=0.5")]
    assert [f.verdict for f in gate(run, both)] == ["pass", "pass", "cannot tell"]
    assert [f.verdict for f in gate(run, both, of="smoothed")] == ["pass", "pass"]
    assert [f.verdict for f in gate(run, both[:1])] == ["pass"]
    code, _, error = hauberk("gate", run, "--require", "clean>=0.5", "--of", "smothed")
    assert (code, "there are: small_cnn" in error) == (2, True)
    names = [f.name for f in gate(run, [], RESULTS / "cifar10" / "standard_cifar10_small-seed0", of="smoothed")]
    assert names == [f"against {RESULTS / 'cifar10' / 'standard_cifar10_small-seed0'}"]  # which has no smoothed version


# --- against a baseline -------------------------------------------------------------------------------------------


def test_a_run_against_itself_and_against_another(tiny_run: Path, tmp_path: Path, hauberk: Typed) -> None:
    other = Path(shutil.copytree(tiny_run, tmp_path / "base"))
    same = gate(tiny_run, [], other)
    assert {str(f.name).split(" against")[0] for f in same} == {"clean", "attacked l2 0.5", "certified l2 0.5"}
    assert {f.verdict for f in same} == {"cannot tell"}  # 48 images, three shares: a drop of 5 points is not excluded
    assert {f.verdict for f in gate(tiny_run, [], other, unseen=0.3)} == {"pass"}
    (only,) = gate(tiny_run, [parse("certified@l2:0.25>=0.1")], other, unseen=0.3)[1:]
    assert only.name.startswith("certified l2 0.25 against")
    code, _, error = hauberk("gate", tiny_run, "--against", other, "--drop", -1)
    assert code == 2 and "tolerated drop" in error
    weak = Path(shutil.copytree(tiny_run, tmp_path / "weak"))
    assert hauberk("attack", weak, "--threat", "l2:0.5", "--attack", "fgsm", "--images", 48, "--tile", 16)[0] == 0
    found = {f.name.split(" against")[0]: f for f in gate(tiny_run, [parse("robust@l2:0.5>=0.01")], weak, unseen=0.3)}
    assert "the baseline met attacks that this run did not" in found["attacked l2 0.5"].reason


@pytest.mark.parametrize("forged", ["run", "base"])
def test_records_that_do_not_verify_are_compared_with_nothing(
    forged: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(shutil.copytree(tiny_run, tmp_path / "base"))
    load = collect.load

    def loaded(paths: list[Path]) -> list[RunFacts]:
        (facts,) = load(paths)
        if (paths[0] == base) != (forged == "base"):
            return [facts]
        first, *others = facts.verdicts
        return [replace(facts, verdicts=(replace(first, problems=["row 3 is forged"]), *others))]

    monkeypatch.setattr(collect, "load", loaded)
    (found,) = gate(tiny_run, [], base, unseen=0.3)
    assert (found.verdict, "row 3 is forged" in found.reason) == ("cannot tell", True)
    assert found.missing == ("verify", str(base if forged == "base" else tiny_run))


def test_what_a_baseline_is_not_held_against_is_said(tiny_run: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_run, tmp_path / "base"))
    asked = [parse("worst(clean)>=0.001"), parse("acr@l2>=0.001")]
    found = gate(tiny_run, asked, base, unseen=0.3)[2:]
    assert [(f.verdict, "only shares of all images" in f.reason) for f in found] == [("cannot tell", True)] * 2
    (whole,) = [f for f in gate(tiny_run, [], base, unseen=0.3) if f.name.startswith("clean")]
    predictor = str(collect.load([tiny_run])[0].info["predictor"])
    assert whole.reason.startswith(f"{predictor} less {predictor}: +0.0 points [")
    assert f"at {100 * (1 - 2 * ALPHA / 3):.4g} %" in whole.reason  # three shares, both ends


def test_proofs_without_a_radius_ask_for_one(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an attack no budget says at which radius two runs should be held against each other."""
    base, (facts,) = Path(shutil.copytree(tiny_run, tmp_path / "base")), collect.load([tiny_run])
    proofs = replace(facts, parts=tuple(part for part in facts.parts if part.kind != "attack"))
    monkeypatch.setattr(collect, "load", lambda _: [proofs])
    found = {f.name.partition(" against")[0]: f for f in gate(tiny_run, [], base, unseen=0.3)}
    assert found.keys() == {"clean", "certified l2"}
    assert found["certified l2"].verdict == "cannot tell"
    assert "--require 'certified@l2:RADIUS>=SHARE'" in found["certified l2"].reason


# --- the command line ---------------------------------------------------------------------------------------------


def test_exit_codes_reasons_and_junit(tiny_run: Path, tmp_path: Path, hauberk: Typed) -> None:
    file = tmp_path / "gate.xml"
    code, text, _ = hauberk("gate", tiny_run, "--require", "clean>=0.01")
    assert code == 0
    assert text.splitlines()[0].startswith("pass  clean>=0.01: ")
    code, text, _ = hauberk("gate", tiny_run, "--require", "clean>=0.01", "--require", "robust@l2:3>=0.1")
    assert code == 3
    assert text.splitlines()[-1] == f"next: hauberk attack {tiny_run} --threat l2:3"
    asked = ("--require", "clean>=0.01", "--require", "clean>=1", "--require", "robust@l2:3>=0.1")
    code, text, _ = hauberk("gate", tiny_run, *asked, "--junit", file, "--json")
    assert code == 1  # a failure counts more than a doubt
    assert json.loads(text)["verdict"] == "fail"
    root = ElementTree.parse(file).getroot()
    assert [root[0].get(name) for name in ("tests", "failures", "errors")] == ["3", "1", "1"]
    assert [child.tag for case in root[0] for child in case] == ["system-out", "failure", "error"]
    assert "below 1" in str(root[0][1][0].get("message"))


@pytest.mark.parametrize(
    "words",
    [["--require", "clean"], [], ["--require", "clean>=0.5", "--allow", "all"], ["--require", "clean>=0.5", "--what"]],
)
def test_what_cannot_be_judged_has_the_code_of_a_usage_error(words: list[str], tiny_run: Path, hauberk: Typed) -> None:
    code, _, error = hauberk("gate", tiny_run, *words)
    assert code == 2
    assert "error: " in error
    assert hauberk("gate", "nowhere", "--require", "clean>=0.5")[0] == 2


# --- what newcomers meet ------------------------------------------------------------------------------------------


def _attack(eps: float, **method: object) -> Part:
    """What the gate reads of an attack's record."""
    unit = {"threat": {"name": "l2", "eps": eps}, "method": {"name": "pgd"} | method}
    return cast(Part, SimpleNamespace(kind="attack", unit=unit))


@pytest.mark.parametrize(
    ("typed", "known", "taken"),
    [
        (0.1268, [0.12676506], 0.12676506),  # as the terminal prints it
        (0.1269, [0.12676506], 0.1269),
        (0.03137, [8 / 255, 0.03137], 0.03137),  # the very budget comes first
        (8 / 255, [8 / 255, 0.03137], 8 / 255),
        (0.03137, [8 / 255], 8 / 255),
    ],
)
def test_a_budget_is_that_of_the_record_which_prints_the_same(typed: float, known: list[float], taken: float) -> None:
    asked = parse(f"robust@l2:{typed!r}>=0.1").quantity
    assert verb.on_record([_attack(eps) for eps in known], asked).eps == taken
    aimed = {"name": "towards", "target": 3, "attack": {"name": "pgd"}}
    assert verb.on_record([_attack(eps, **aimed) for eps in known], asked).eps == typed


def test_a_record_at_a_larger_budget_does_not_fail_a_smaller_one(tiny_run: Path) -> None:
    """No attack makes a share higher, and a smaller budget may."""
    smaller, larger = (one(tiny_run, f"robust@l2:{eps}>=0.999") for eps in (0.49999, 0.50001))
    assert (smaller.verdict, larger.verdict) == ("cannot tell", "fail")
    assert smaller.missing == ("attack", str(tiny_run), "--threat", "l2:0.49999")
    assert all("which had the budget l2:0.5" in found.reason for found in (smaller, larger))


@pytest.mark.parametrize("goal", [["--target", "3"], ["--eight-bit"]])
def test_an_attack_with_another_goal_is_no_robust_accuracy(goal: list[str], fresh: Path, hauberk: Typed) -> None:
    """A chosen class that is never reached leaves every image standing."""
    words = ("--threat", "l2:0.01", "--attack", "pgd,steps=1", "--images", 16, "--tile", 16, *goal)
    assert hauberk("attack", fresh, *words)[0] == 0
    found = one(fresh, "robust@l2:0.01>=0.01", allowed=["undiagnosed"])
    assert (found.verdict, found.missing[0]) == ("cannot tell", "attack")
    assert Quantity("attacked", "l2", 0.01) not in read([fresh])[0].outcomes


@pytest.fixture
def fresh(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "fresh"))


def test_a_bundle_without_weights_gets_no_command_that_needs_them() -> None:
    found = one(RESULTS / "digits" / "lip_digits-seed0", "robust@l2:0.77>=0.1")
    assert (found.missing, "the weights are needed" in found.reason) == ((), True)


def test_what_is_on_record_instead_is_named() -> None:
    found = one(RESULTS / "digits" / "lip_digits-seed0", "robust@l2:0.77>=0.1")
    assert found.verdict == "cannot tell"
    assert "attacked are l2:" in found.reason


def test_a_certificate_that_stopped_at_a_goal_does_not_stand_for_one_that_did_not() -> None:
    """Its n is a ceiling, and beyond its goal it proves little."""
    goal = {"n": 100_000, "goal": 0.1}
    assert preference("probabilistic", {"n": 500}, 0) > preference("probabilistic", goal, 0)
    assert preference("probabilistic", {"base": {"n": 500}}, 0) > preference("probabilistic", {"base": goal}, 0)
    assert preference("deterministic", {}, 0) > preference("probabilistic", {"n": 500}, 0)
    assert preference("probabilistic", {"n": 500}, 0) > preference("probabilistic", {"n": 500}, 1)
