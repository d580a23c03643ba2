"""The command line: every verb leaves one artefact; every mistake is one clear message and a non-zero exit code."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from hauberk.evaluation import budget
from hauberk.records import group, read_all

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(tiny_run, tmp_path / "copied"))


class Probabilities(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :10].softmax(1)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(images)
        return logits


def linear() -> nn.Module:
    torch.manual_seed(0)
    return Linear().net


def probabilities() -> nn.Module:
    return Probabilities()


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own that makes models."""
    (tmp_path / "my_models.py").write_text(Path(__file__).read_text().split("@pytest.fixture\ndef factories")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return "my_models"


def test_the_whole_path(tiny_recipe: Path, tmp_path: Path, hauberk: Typed) -> None:
    out = tmp_path / "run"
    code, text, _ = hauberk("train", tiny_recipe, "-o", out, "--set", "training.epochs=1")
    assert code == 0
    assert "next: hauberk attack" in text
    code, text, _ = hauberk("attack", out, "--images", 16, "--tile", 16)
    assert code == 0
    assert "attacked l2 0.5" in text
    code, text, _ = hauberk("certify", out, "--images", 16, "--tile", 16, "--json")
    assert code == 0
    assert json.loads(text)
    mixed = tmp_path / "mixed"
    arguments = ("--accurate", out, "--robust", out, "--alpha", 0.8, "--robust-scale", 4, "-o", mixed, "--images", 16)
    assert hauberk("mix", *arguments)[0] == 0
    assert hauberk("attack", mixed, "--threat", "linf:8/255", "--attack", "fgsm", "--images", 16)[0] == 0
    assert hauberk("certify", mixed, "--images", 16)[0] == 0
    assert hauberk("certify", mixed, "--images", 16, "--bound", "theorem_3_5", "--norm", "linf")[0] == 0
    local = ("--method", "local_lipschitz,threat=linf:8/255")
    assert hauberk("certify", mixed, "--images", 4, *local)[0] == 0
    kept = {(p.facts["norm"], p.facts["proof"]) for p in read_all(mixed / "records", "certificate")}
    assert kept == {("l2", "deterministic"), ("linf", "deterministic"), ("linf", "estimate")}
    code, text, _ = hauberk("verify", out, mixed, "--weights")
    assert code == 0, text
    assert "0 evaluations with problems" in text
    code, text, _ = hauberk("report", out, mixed, "-o", tmp_path / "page.html")
    assert code == 0
    assert (tmp_path / "page.html").stat().st_size > 100_000


def test_a_model_of_ones_own(factories: str, tmp_path: Path, hauberk: Typed) -> None:
    code, text, error = hauberk("attack", f"{factories}:linear", "--data", "digits", "--threat", "linf:8/255",
                            "--attack", "pgd,steps=2", "--images", 16, "-o", tmp_path / "own")  # fmt: skip
    assert code == 0, error
    assert "attacked linf" in text
    code, text, error = hauberk("certify", f"{factories}:linear", "--data", "digits", "--images", 16,
                            "-o", tmp_path / "own")  # fmt: skip
    assert code == 0, error
    assert len(read_all(tmp_path / "own" / "records", "certificate")) == 1


def test_a_budget_ends_a_certificate_and_the_same_command_goes_on(
    factories: str, tmp_path: Path, hauberk: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("certify", f"{factories}:linear", "--data", "digits", "--images", 32, "--tile", 16, "--n", 300,
               "--method", "smoothing,sigma=0.25,rule=anytime,alpha=0.1", "-o", tmp_path / "own")  # fmt: skip
    asked = iter(range(300))  # the first 16 images take 240 model calls to their first bound

    def check(self: object) -> None:
        if next(asked, None) is None:
            raise budget.OutOfTimeError

    with monkeypatch.context() as short:
        short.setattr(budget.Budget, "check", check)
        code, text, error = hauberk(*command, "--budget", "10m")
    assert code == 0, error
    assert "stopped after its budget of 600 s: smoothing has concluded on 16 of 32 images with 128 votes each." in text
    assert "of 16 images" in text
    info = json.loads((tmp_path / "own" / "run.json").read_text())
    assert "The same command goes on." in info["notes"][-1]
    assert hauberk("verify", tmp_path / "own")[0] == 0
    code, text, error = hauberk(*command)
    assert code == 0, error
    assert "stopped" not in text
    assert "of 32 images" in text
    info = json.loads((tmp_path / "own" / "run.json").read_text())
    assert info["stopped"] == {}
    assert not any("stopped" in note for note in info["notes"])
    assert hauberk("verify", tmp_path / "own")[0] == 0
    (found,) = group(read_all(tmp_path / "own" / "records", "certificate"))
    assert [json.loads(row).get("drawn", 300) for row in found.table.column("evidence").to_pylist()] == [300] * 32
    for wrong in ("10", "-1m", "0s", "ten minutes", "1d"):
        code, _, error = hauberk(*command, "--budget", wrong)
        assert code == 1
        assert "--budget expects seconds, minutes or hours" in error


def test_a_dry_run_estimates_and_leaves_nothing(factories: str, tmp_path: Path, hauberk: Typed) -> None:
    command = ("certify", f"{factories}:linear", "--data", "digits", "--images", 16, "--tile", 64, "--n", 256,
               "--method", "smoothing,sigma=0.25", "-o", tmp_path / "own")  # fmt: skip
    code, text, error = hauberk(*command, "--dry-run")
    assert code == 0, error
    assert "smoothing with n = 256: an estimate, not a certificate, from 200 votes of each of 16 images" in text
    assert "certified l2 0: about" in text
    assert "mean radius over all images about" in text
    assert not (tmp_path / "own").exists()
    code, text, error = hauberk(*command, "--dry-run", "--json")
    assert code == 0, error
    assert json.loads(text)["estimates"][0]["n"] == 256
    code, text, error = hauberk(*command)  # a look at the pilot spoils no plan
    assert code == 0, error
    assert [p.facts["proof"] for p in read_all(tmp_path / "own" / "records", "certificate")] == ["probabilistic"]


def test_lipschitz_bounds_of_a_run_and_of_a_model_without(
    copied: Path, factories: str, tmp_path: Path, hauberk: Typed
) -> None:
    code, text, error = hauberk("lipschitz", copied, "--images", 2, "--norm", "linf")
    assert code == 0, error
    assert "AOLConv2d" in text
    code, text, _ = hauberk("lipschitz", f"{factories}:probabilities", "--data", "digits", "-o", tmp_path / "own")
    assert code == 0
    assert "no bound" in text
    code, _, error = hauberk("lipschitz", copied, "--norm", "l7")
    assert code == 1
    assert "l1, l2 or linf" in error


def test_records_stay_with_their_run(copied: Path, tmp_path: Path, hauberk: Typed) -> None:
    code, _, error = hauberk("certify", copied, "--images", 4, "-o", tmp_path / "elsewhere")
    assert code == 1
    assert "leave -o out" in error
    code, _, error = hauberk("certify", copied, "--images", 4, "--bound", "theorem_a1")
    assert code == 1
    assert "a mix" in error


def test_check_looks_before_anything_is_spent(factories: str, copied: Path, tmp_path: Path, hauberk: Typed) -> None:
    code, text, error = hauberk("check", copied, "--threat", "linf:0.05", "--images", 100)
    assert code == 0, error
    assert "ready for an evaluation" in text
    assert "autoattack fast: at most" in text
    code, text, _ = hauberk("check", f"{factories}:probabilities", "--data", "digits", "-o", tmp_path / "bad")
    assert code == 1
    assert "LOOK  logits" in text
    code, text, error = hauberk("check", copied, "--threat", "l2:0.5", "--diagnose", "--json")
    assert code == 0, error
    assert json.loads(text)["good"]
    assert len(read_all(copied / "records", "diagnosis")) == 1


def test_mixes_by_wish(copied: Path, tmp_path: Path, hauberk: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the logits are kept
    pair = ("--accurate", copied, "--robust", copied)
    code, text, error = hauberk("mix", *pair, "--clean", 0.2, "--threat", "l2:0.1", "--calibration-images", 8,
                            "--images", 16, "-o", tmp_path / "mix")  # fmt: skip
    assert code == 0, error
    assert "on 8 validation images: clean accuracy" in text
    assert hauberk("mix", *pair)[0] == 1  # neither a weight nor a wish
    assert hauberk("mix", *pair, "--alpha", 0.5, "--clean", 0.5)[0] == 1
    assert hauberk("mix", "--alpha", 0.5)[0] == 1  # of what?
    assert hauberk("mix", *pair, "--choose", "nuts", "--robust-accuracy", 0.5, "--robust-scale", 2)[0] == 1


def test_a_threat_alone_means_the_everyday_suite_and_another_norm(copied: Path, hauberk: Typed) -> None:
    shutil.rmtree(copied / "records")
    code, _, error = hauberk("attack", copied, "--threat", "linf:0.05", "--images", 16)
    assert code == 0, error
    units = [p.unit for p in read_all(copied / "records", "attack")]
    assert {u["method"]["threat"]["name"] for u in units} == {"linf", "l2"}
    assert {u["suite"]["version"] for u in units if u.get("suite")} == {"fast"}


def test_shards_together_are_the_whole(copied: Path, hauberk: Typed) -> None:
    before = {p.key: p.table for p in read_all(copied / "records", "attack")}
    shutil.rmtree(copied / "records")
    for shard, executor in (("0/2", "inline"), ("1/2", "processes,workers=2")):
        how = ("--images", 48, "--tile", 16, "--shard", shard, "--executor", executor)
        assert hauberk("attack", copied, *how)[0] == 0
    after = {p.key: p.table for p in read_all(copied / "records", "attack")}
    assert after.keys() == before.keys()


def test_listing_and_explaining(hauberk: Typed) -> None:
    for family in ("attacks", "certificates", "objectives", "defences", "models", "datasets", "threats", "recipes"):
        code, text, _ = hauberk("list", family, "--json")
        assert code == 0
        assert len(json.loads(text)[family]) >= 2
    code, text, _ = hauberk("list", "attacks")
    assert "apgd" in text
    code, text, _ = hauberk("explain", "apgd")
    assert "checkpoint" in text
    assert hauberk("--version")[1].startswith("hauberk ")


def test_explain_leads_to_the_page_of_the_site(hauberk: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("HAUBERK_SITE", "https://example.org/docs/")
    assert hauberk("explain", "clopper_pearson_lower", "--open")[0] == 0
    assert opened == ["https://example.org/docs/reference/methods/clopper_pearson_lower.html"]
    monkeypatch.delenv("HAUBERK_SITE")
    monkeypatch.setattr("pathlib.Path.exists", lambda path: False)
    code, _, said = hauberk("explain", "apgd", "--open")
    assert code == 1 and "make docs" in said
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["train", "no_such_recipe"], "there is no recipe", "hauberk list recipes"),
        (["train", "demo_standard", "--set", "training.epochz=3"], "epochz", "did you mean 'epochs'"),
        (["train", "pgd_cifar10_small", "--set", "data.root=/nowhere"], "", "cifar-10-batches-py"),
        (["attack", "nowhere"], "there is no run directory nowhere", "hauberk train"),
        (["attack", "no_such_module:build", "--data", "digits"], "cannot import", "folder that holds it"),
        (["attack", "my_models:linear"], "needs --data", "--data cifar10"),
        (["attack", "my_models:linear", "--data", "digits"], "no threat was given", "--threat linf:8/255"),
        (["attack", "my_models:linear", "--data", "digits", "--threat", "linf:eight"], "eight", ""),
        (["attack", "my_models:linear", "--data", "digits", "--threat", "lint:8/255"], "lint", "did you mean 'linf'"),
        (["attack", "my_models:linear", "--data", "digits", "--threat", "l1:3", "--attack", "ddn"], "not in l1", ""),
        (["attack", "my_models:probabilities", "--data", "digits", "--threat", "l2:1"], "got probabilities", "softmax"),
        (["certify", "my_models:probabilities", "--data", "digits"], "got probabilities", "softmax"),
        (["attack", "my_models:linear", "--data", "digits", "--threat", "l2:1", "--images", "5000"], "5000", "fewer"),
        (["attack", "my_models:linear", "--data", "digits", "--threat", "l2:1", "--shard", "2/2"], "--shard", "0/2"),
        (["attack", "my_models:linear", "--data", "digits", "--threat", "l2:1", "--split", "train"], "split", ""),
        (["attack", "nowhere", "--executor", "threads"], "there is no executor called 'threads'", "processes"),
        (["attack", "nowhere", "--device", "gpu"], "--device", "cpu"),
        (["attack", "nowhere", "--device", "mps"], "float64", "--device cpu"),
        (["attack", "nowhere", "--precision", "tf32", "--device", "cpu"], "tf32", "--precision"),
        (["verify", "nowhere"], "not a run directory", ""),
        (["report", "nowhere"], "nowhere", ""),
        (["list", "atacks"], "no family", "did you mean 'attacks'"),
        (["explain", "apdg"], "apdg", "did you mean 'apgd'"),
        (["sweep", "nowhere.yaml"], "no table", "recipes"),
    ],
)
@pytest.mark.usefixtures("factories")
def test_mistakes(arguments: list[str], message: str, hint: str, hauberk: Typed) -> None:
    code, _, error = hauberk(*arguments)
    assert code == 1
    assert "\nerror: " in f"\n{error}"
    assert message in error
    assert hint in error
    assert "Traceback" not in error


def test_verify_fails_on_a_tampered_record(copied: Path, hauberk: Typed) -> None:
    assert hauberk("verify", copied)[0] == 0
    victim = next((copied / "records").glob("certificate-*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    code, out, err = hauberk("verify", copied)
    assert code == 1
    assert "changed" in out + err or "not a Hauberk record" in out + err


def test_a_stopped_run_says_how_to_go_on(tiny_recipe: Path, hauberk: Typed, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hauberk.verbs.train.fit", interrupted)
    code, _, error = hauberk("train", tiny_recipe, "-o", tmp_path / "r")
    assert code == 130
    assert "the same command goes on" in error


def test_the_installed_command_exits_with_the_code(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from hauberk.cli import main; main()", "attack", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("attacking nowhere\nerror: there is no run directory nowhere")
    assert done.stdout == ""
