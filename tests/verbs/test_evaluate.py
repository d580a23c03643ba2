"""Evaluation from end to end: what is done to which model, what stops it, what it leaves, the numbers as a value."""

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hauberk
from hauberk.attacks import APGD, EOT, FGSM, AutoAttack, EOTSweep, Square
from hauberk.capabilities import ScoresOnly
from hauberk.certificates import LipschitzCertificate, SmoothingCertificate
from hauberk.certificates.random_vote import RandomVote
from hauberk.cli.attack import _attacks as asked
from hauberk.data import load
from hauberk.errors import HauberkError
from hauberk.evaluation.preflight import passes
from hauberk.evaluation.work import Step
from hauberk.layers import NoiseInjection, UnitRowLinear
from hauberk.models.hycas_net import hycas_net
from hauberk.models.onnx_file import OnnxFile
from hauberk.noises import Gaussian
from hauberk.recipes import Evaluation
from hauberk.runs import Run
from hauberk.subjects import Subject
from hauberk.threats import L2, Linf
from hauberk.verbs import evaluate as verb
from hauberk.verbs.outcome import Outcome
from hauberk.verify import verify_run

from ..onnx_net import linear

Typed = Callable[..., tuple[int, str]]
FEW = Evaluation(images=8, tile=16, gallery=1)


class Net(nn.Module):
    """A linear net with the classes' mean images as weights, and something after it."""

    def __init__(self, after: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        train = load("digits").train
        self.net, self.after = nn.Linear(64, 10), after
        means = torch.stack([train.batch(train.labels == k).images.flatten(1).mean(0) for k in range(10)])
        with torch.no_grad():
            self.net.weight.copy_(means)
            self.net.bias.copy_(-means.square().sum(1) / 2)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images.flatten(1))
        return logits if self.after is None else self.after(logits)


@pytest.fixture(scope="module")
def few() -> tuple[Tensor, Tensor]:
    batch = load("digits").test.batch(slice(0, 12))
    return batch.images, batch.labels


def subject(model: nn.Module, path: Path) -> Subject:
    recipe = {"name": "mine", "data": {"name": "digits"}, "model": {"factory": "mine:net"}}
    return Subject(Run(path), model, load("digits"), recipe)


def test_the_whole_of_it_without_a_word_about_how(tmp_path: Path) -> None:
    target = subject(Net(), tmp_path / "run")
    wanted = verb.planned(target, plan=FEW)
    suite, other = wanted.attacks
    assert isinstance(suite, AutoAttack) and suite.threat == Linf(2 / 255) and suite.version == "fast"
    assert isinstance(other, APGD) and other.threat.norm == "l2"
    assert wanted.diagnosed == (APGD(Linf(2 / 255)),) and wanted.certificates == ()
    assert "Nothing is proved" in wanted.remarks[0] and 0.0 < wanted.seconds < 1000.0
    assert not (tmp_path / "run").exists()  # so far nothing is measured


def test_a_random_model_with_bounds_is_certified_by_the_vote_over_its_draws(tmp_path: Path) -> None:
    random = hycas_net((1, 8, 8), 10, [0.5], [0.3], widths=(4,), strides=(2,)).eval()
    assert verb.planned(subject(random, tmp_path / "run"), plan=FEW).certificates == (RandomVote(),)
    unbounded = nn.Sequential(NoiseInjection(Gaussian(0.1)), Net()).eval()
    wanted = verb.planned(subject(unbounded, tmp_path / "run"), plan=FEW)
    assert wanted.certificates == () and "Nothing is proved" in wanted.remarks[0]


def test_a_random_model_meets_the_protocol_for_random_models(tmp_path: Path) -> None:
    target = subject(nn.Sequential(NoiseInjection(Gaussian(0.1)), Net()).eval(), tmp_path / "run")
    wanted = verb.planned(target, plan=FEW, certificates=[])
    ball = Linf(2 / 255)
    suite, sweep, one, many, other = wanted.attacks
    assert asked(target, ball, None, None) == list(wanted.attacks[:-1])  # hauberk attack --threat takes the same
    assert isinstance(suite, AutoAttack) and suite.version == "rand"
    assert sweep == EOTSweep(ball)
    assert all(isinstance(a, EOT) and a.fixed and a.mean == "logits" for a in (one, many))
    assert [a.draws for a in (one, many)] == [1, 20]
    assert other.threat.norm == "l2" and wanted.diagnosed == (APGD(ball),)
    plain = verb.planned(subject(Net(), tmp_path / "run"), plan=FEW, certificates=[])
    assert wanted.seconds > 0.0
    cost = [sum(sum(passes(a, 10, r)) for a in w.attacks) for w, r in ((wanted, True), (plain, False))]
    assert cost[0] > 20 * cost[1]  # the draws are in the price
    standard = verb.planned(target, plan=FEW, certificates=[], version="standard")
    assert [a.version for a in standard.attacks[:2]] == ["standard", "rand"]
    assert any("made for deterministic models" in remark for remark in standard.remarks)


def test_a_net_whose_layers_prove_something_is_certified(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), UnitRowLinear(64, 10)).eval()
    assert verb.planned(subject(net, tmp_path / "run"), plan=FEW).certificates == (LipschitzCertificate(),)
    vote = SmoothingCertificate(Gaussian(0.25), n=100)
    assert verb.planned(subject(net, tmp_path / "run"), plan=FEW, certificates=[vote]).certificates == (vote,)
    assert verb.planned(subject(net, tmp_path / "run"), plan=FEW, certificates=[]).remarks == ()


def test_a_file_without_gradients_meets_square_alone_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    target = subject(OnnxFile(linear(Net().net, ["rows", 1, 8, 8]), "net.onnx"), tmp_path / "run")
    wanted = verb.planned(target, L2(0.1), plan=FEW)
    suite, other = wanted.attacks
    assert isinstance(suite, AutoAttack) and suite.attacks == (Square(L2(0.1), queries=1000),)
    assert isinstance(other, Square) and other.threat.norm == "linf"
    assert wanted.diagnosed == () and any("gives none" in remark for remark in wanted.remarks)
    fast = [Square(L2(0.1), queries=3)]
    vote = [SmoothingCertificate(Gaussian(0.25), n=20, n0=10, alpha=0.1)]
    run = verb.carried_out(target, verb.planned(target, None, FEW, fast, vote))
    assert not any(v.problems for v in verify_run(run.path))
    assert any("gives none" in note for note in run.info["notes"])  # for the page


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (lambda z: (z, z), "logits: expected logits of shape"),
        (lambda z: z.softmax(1), "probabilities"),
        (lambda z: z[:, :5], "5 outputs"),
        (lambda z: z - z.mean(0), "depends on the other images"),
        (lambda z: 1 / 0, "division by zero"),
    ],
)
def test_what_stops_it_is_said_and_leaves_nothing(after: Callable[[Tensor], Tensor], said: str, tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match=said):
        verb.planned(subject(Net(after), tmp_path / "run"), plan=FEW)
    with pytest.raises(HauberkError, match="train mode"):
        verb.planned(subject(Net().train(), tmp_path / "run"), plan=FEW)
    assert not (tmp_path / "run").exists()


def test_a_model_with_more_outputs_than_classes_is_called_out_and_measured(tmp_path: Path) -> None:
    wider = Net(lambda z: nn.functional.pad(z, (0, 3), value=-9.0))
    found = {f.name: f for f in verb.planned(subject(wider, tmp_path / "run"), plan=FEW).findings}
    assert not found["classes"].good and "13 outputs" in found["classes"].text and found["accuracy"].good


# --- in Python ------------------------------------------------------------------------------------------------------


@contextmanager
def few_steps() -> Iterator[None]:
    """Two attacks of one step in the place of the suite, and no judgement of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hauberk.verbs.evaluate.suite", lambda target, threat, version: (FGSM(threat),))
        patch.setattr("hauberk.verbs.evaluate.other_norm", lambda target, threat: FGSM(L2(0.3)))
        patch.setattr("hauberk.verbs.evaluate._judged", lambda target, threat: [])
        yield


@pytest.fixture
def quick() -> Iterator[None]:
    with few_steps():
        yield


@pytest.fixture(scope="module")
def found(few: tuple[Tensor, Tensor]) -> Outcome:
    with few_steps():  # and no longer, because other tests of this module may come next
        return hauberk.evaluate(Net(), *few, "linf:0.1")


def test_one_call_on_a_model_images_and_labels(found: Outcome, few: tuple[Tensor, Tensor]) -> None:
    clean, *attacked = found.numbers
    right = float((Net()(few[0]).argmax(1) == few[1]).float().mean())
    assert (clean.what, clean.value, clean.images) == ("clean", pytest.approx(right), 12)
    assert {(n.norm, n.eps) for n in attacked} == {("linf", 0.1), ("l2", 0.3)}
    assert all(n.low <= n.value <= n.high and n.value <= clean.value for n in attacked)
    assert found.path is None  # nothing was kept


def test_the_numbers_print_show_and_become_a_frame(
    found: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = str(found).splitlines()
    assert lines[0].split() == ["threat", "accuracy", "95", "%", "interval", "images", "by"]
    assert any(re.match(r"attacked  linf 0\.1 +at most [\d.]+ %", line) for line in lines)
    shown = found._repr_html_()
    assert shown.startswith("<table>") and shown.count("<tr>") == 1 + len(found.numbers)
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    assert [row["what"] for row in found.frame()] == ["clean", "attacked", "attacked"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HauberkError, match="needs pandas"):
        found.frame()


@pytest.mark.parametrize("form", ["bytes", "no channel axis", "last", "numpy"])
def test_images_in_the_forms_that_they_have(form: str, few: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    images, labels = few
    given = {
        "bytes": (255 * images).round().byte(), "no channel axis": images[:, 0], "last": images.permute(0, 2, 3, 1),
        "numpy": images.numpy(),
    }[form]  # fmt: skip
    plain = (np.asarray(given), labels.numpy()) if form == "numpy" else (given, labels)
    target = verb._target(Net(), *plain, tmp_path / "run")
    assert target.dataset.input_shape == (1, 8, 8) and target.dataset.num_classes == 10
    assert torch.allclose(target.dataset.test.batch().images, images, atol=1 / 500)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (None, None, "needs images and their labels"),
        (torch.rand(4, 8, 8, 8), torch.zeros(4).long(), "which axes"),
        (torch.rand(4, 1, 8, 8) * 255, torch.zeros(4).long(), r"floats in \[0, 1\]"),
        (torch.rand(4, 1, 8, 8), torch.zeros(3).long(), "one label for each image"),
        (torch.rand(4, 1, 8, 8), torch.zeros(4), "integer labels"),
        (torch.rand(0, 1, 8, 8), torch.zeros(0).long(), "no images"),
    ],
)
def test_images_that_are_none(images: Tensor, labels: Tensor, said: str) -> None:
    with pytest.raises(HauberkError, match=said):
        hauberk.evaluate(Net(), images, labels)


def test_with_a_folder_the_same_call_goes_on(few: tuple[Tensor, Tensor], quick: None, tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.done:
            raise KeyboardInterrupt

    plan = Evaluation(tile=4)
    with pytest.raises(KeyboardInterrupt):
        hauberk.evaluate(Net(), *few, "linf:0.1", plan=plan, out=tmp_path / "run", report=stop)
    before = sorted((tmp_path / "run" / "records").iterdir())
    found = hauberk.evaluate(Net(), *few, "linf:0.1", plan=plan, out=tmp_path / "run")
    assert found.path == tmp_path / "run" and set(before) < set((found.path / "records").iterdir())
    assert not any(v.problems for v in verify_run(found.path))
    with pytest.raises(HauberkError, match="another recipe"):
        hauberk.evaluate(Net(), few[0][:6], few[1][:6], "linf:0.1", plan=plan, out=tmp_path / "run")


# --- typed ----------------------------------------------------------------------------------------------------------


def test_typed_it_ends_with_a_page_and_a_command_that_works(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "typed_net", raising=False)
    (tmp_path / "typed_net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    net = nn.Sequential(nn.Flatten(), Net().net)
    torch.save({"model": net.state_dict()}, "net.pt")
    test = load("digits").test
    np.savez("own.npz", images=test.images[:24, 0].numpy(), labels=test.labels[:24].numpy())
    monkeypatch.setattr("hauberk.verbs.evaluate._judged", lambda target, threat: [])
    line = "evaluate net.pt --arch typed_net:build --data own.npz --attack fgsm --threat linf:4/255"
    words = shlex.split(line)
    code, said = typed(*words)
    assert code == 0, said
    assert "at most 0:0" in said and "certified l2" in said
    page = Path(re.search(r"page: (\S+)", said)[1])  # type: ignore[index]
    assert page.read_text().startswith("<!doctype html>") and page.parent.parent == Path("runs")
    following = re.search(r"next: hauberk (.+)", said)[1]  # type: ignore[index]
    assert typed(*following.split())[0] == 0
    records = sorted(page.parent.glob("records/*"))
    assert typed(*words)[0] == 0 and sorted(page.parent.glob("records/*")) == records


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--suite fst", "did you mean 'fast'?"),
        ("--threat linf:8", "did you mean linf:8/255?"),
        ("--data digit", "did you mean 'digits'?"),
        ("--certify smoothing,sigma=0.25,n=9", "10 votes are needed"),
        ("--images 9999", "9999 were requested"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    words: str, said: str, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "typed_net", raising=False)
    code = "from torch import nn\nnet = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    (tmp_path / "typed_net.py").write_text(code)
    data = "" if "--data" in words else "--data digits"
    failed, text = typed(*f"evaluate typed_net:net {data} {words}".split())
    assert failed == 1 and said in text
    assert not (tmp_path / "runs").exists()


def test_an_attack_on_a_model_without_gradients_is_not_judged() -> None:
    class Scores(nn.Module, ScoresOnly):
        """Gives no gradients."""

    with pytest.raises(HauberkError, match="this model has none"):
        hauberk.diagnose(SimpleNamespace(model=Scores()), APGD(Linf(0.1)))  # type: ignore[arg-type]


# --- a run with a recipe of its own ---------------------------------------------------------------------------


def test_what_a_run_planned_holds_for_what_nobody_says(tiny_run: Path) -> None:
    """Its budget is that of a suite or an attack without one, and its certificates stay where a threat is said."""
    target = hauberk.subject(tiny_run)
    recipe = target.recipe["evaluation"]
    first = recipe["attacks"][0]
    proofs = verb.planned(target, plan=FEW).certificates
    assert len(proofs) == len(recipe["certificates"]) > 0
    assert verb.planned(target, Linf(0.1), FEW).certificates == proofs
    assert str(verb.usual(target)) == first["threat"] == "l2:0.5"
    whole = verb.planned(target, plan=FEW, version="fast")
    assert {a.threat for a in whole.attacks[:1]} == {L2(0.5)}
    both = verb.planned(target, plan=FEW, attacks=[FGSM(L2(0.3))], version="fast").attacks
    assert both[0] == FGSM(L2(0.3)) and both[1:] == whole.attacks


@pytest.mark.parametrize(
    ("words", "budgets"),
    [
        ("--attack fgsm,threat=l2:0.3", "l2:0.3"),  # which nobody contradicts
        ("--attack fgsm", "l2:0.5"),  # the recipe's
        ("--attack fgsm --threat l2:0.2", "l2:0.2"),
        ("--attack fgsm,threat=l2:0.3 --threat l2:0.2", "give one of the two"),
    ],
)
def test_an_attack_has_the_threat_that_is_typed_for_it(
    words: str, budgets: str, tiny_run: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hauberk.verbs.evaluate._judged", lambda target, threat: [])
    run = shutil.copytree(tiny_run, tmp_path / "again")
    code, said = typed("evaluate", run, *words.split(), "--certify", "none", "--images", 4, "--tile", 16)
    assert (code == 0) == budgets.startswith("l2"), said
    assert (f"attacks in {budgets}," in said or f"attacks in {budgets}\n" in said) if code == 0 else budgets in said


def test_a_run_is_evaluated_again_with_another_threat_in_python(tiny_run: Path, tmp_path: Path) -> None:
    """Its recipe holds attacks and certificates beside the plan."""
    run = Run(Path(shutil.copytree(tiny_run, tmp_path / "again")))
    found = hauberk.evaluate(run, threat=L2(0.25), certify=[], plan=None)
    assert {n.eps for n in found.numbers if n.norm == "l2"} >= {0.25, 0.5}
