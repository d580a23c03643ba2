"""The gate: what passes, what fails, what cannot be told, and which exit code each has."""

import itertools
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from hauberk.comparison.requirement import parse
from hauberk.errors import HauberkError
from hauberk.report import collect
from hauberk.report.collect import RunFacts
from hauberk.report.subject import preference
from hauberk.verbs import gate as verb
from hauberk.verbs.gate import Finding, gate

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
    page = (Path(__file__).resolve().parents[2] / "docs" / "gate.md").read_text()
    blocks = re.findall(r"```(yaml)?\n(.*?)```", page, re.DOTALL)
    assert all(yaml.safe_load(text) for kind, text in blocks if kind)
    lines = [line.partition("hauberk gate ") for line in page.splitlines() if "hauberk gate r" in line]
    commands = [words.split("||")[0] for _, _, words in lines]
    required = [w for text in commands for a, w in itertools.pairwise(shlex.split(text)) if a == "--require"]
    assert len(commands) == 5 and len(required) == 6
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
    assert (found.verdict, found.missing) == ("cannot tell", ("certify", str(tiny_run)))


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
        found = verb._measured(facts, tiny_run, parse(text), ())
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


def test_a_budget_is_found_as_it_is_printed() -> None:
    """The terminal says 0.1268 where the record holds 0.12676506."""
    assert verb.alike(0.12676506, 0.1268)
    assert verb.alike(8 / 255, 0.03137)
    assert not verb.alike(0.12676506, 0.1269)


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
