"""What a user can do wrong: each misuse is one sentence and a next step, and stands in nobody's way afterwards."""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hauberk.attacks import APGD, Attack, autoattack
from hauberk.records import read_all
from hauberk.runs import Run
from hauberk.threats import Threat

Typed = Callable[..., tuple[int, str]]

FEW = "--data npz,file=few.npz,layout=NHW"
HERE = Path(__file__).parent
RECIPE = """
name: mine
data: {name: digits}
model: {name: small_cnn, widths: [4], strides: [1]}
objective: {name: standard}
evaluation: {attacks: [{name: fgsm, threat: "linf:0.1"}, {name: fgsm, threat: "l2:1"}]}
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a few noise images: 60 to train, 6 to test, and one like it without any for validation."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    x, y = rng.random((66, 8, 8)), np.arange(66) % 10
    np.savez(folder / "few.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    return folder


@pytest.fixture
def here(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where commands are typed, with models of the user's own and data."""
    shutil.copy(HERE / "my_nets.py", tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    (tmp_path / "twice.yaml").write_text("name: t\nrows: [{recipe: mine.yaml}, {recipe: mine.yaml}]\n")
    (tmp_path / "once.yaml").write_text("name: t\nrows: [{recipe: mine.yaml}]\n")
    monkeypatch.setenv("HAUBERK_DATA", str(images))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return tmp_path


@pytest.fixture
def typed(typed: Typed) -> Iterator[Typed]:
    """Type a command as one line; the threads that it asks for end with the test."""
    threads = torch.get_num_threads()
    yield lambda line: typed(*shlex.split(line))
    torch.set_num_threads(threads)


def listing(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


ATTACK = f"{FEW} --threat linf:0.1 --attack pgd,steps=2"
NOISE = f"{FEW} --method smoothing --sigma 0.25 --n 20 --alpha 0.1"
CONTRACT = [  # model, what is said, and whether it is said of every verb
    ("pair", "a tuple of 2", "return one tensor of logits, shape (B, K)"),
    ("named", "a dict with the keys 'logits'", "return one tensor of logits, shape (B, K)"),
    ("listed", "a list of 1", "return one tensor of logits"),
    ("nothing", "NoneType", "return one tensor of logits"),
    ("array", "ndarray", "return one tensor of logits"),
    ("classes", "with K >= 2", "return one tensor of logits"),
    ("single", "with K >= 2", "two columns"),
    ("first", "with K >= 2", "return one tensor of logits"),
    ("whole", "got torch.int64", "logits.to(torch.float32)"),
    ("narrow_logits", "got torch.bfloat16", "logits.to(torch.float32)"),
    ("wide_logits", "got torch.float64", "logits.to(torch.float32)"),
    ("channels", "takes 4 channels, the images have 1", "use data with as many channels"),
    ("large", "takes 784 values, an image has 64", "images of its size"),
    ("on_meta", "weights are on the meta device", "build it on the CPU"),
    ("precise", "weights are torch.float64", "model.to(torch.float32)"),
    ("brain", "weights are torch.bfloat16", "model.to(torch.float32)"),
    ("Fails", ": AttributeError", "call it on such images yourself"),
    ("five", "5 outputs", "10 classes"),
    ("quantised", "1._packed_params as tuple", "before quantisation"),
    ("number", "my_nets:number is int", "a function that returns"),
    ("needs", "needs arguments: depth", "def build(): return needs(depth=...)"),
    ("Needs", "needs arguments: width, depth", "def build()"),
    ("broken", ": ZeroDivisionError", "correct it"),
    ("missing", ": FileNotFoundError", "run from the folder"),
    ("prefixed", ": RuntimeError", "k.removeprefix('module.')"),
    ("foreign", ": RuntimeError", "compare its keys"),
    ("quits", "SystemExit: 3", "correct it"),
    ("state", "returned a state_dict", "torch.nn.Module"),
    ("two", "returned a tuple of 2", "torch.nn.Module"),
    ("function", "returned function", "torch.nn.Module"),
    ("god", "my_nets has no 'god'", "did you mean 'good'?"),
]


OTHERS = [f"attack M {ATTACK}", f"certify M {NOISE}", f"certify M {FEW}", f"lipschitz M {FEW}",
          f"mix --accurate my_nets:good --robust M --alpha 0.5 {FEW}"]  # fmt: skip


@pytest.mark.parametrize("check", [True, False], ids=["check", "another_verb"])
@pytest.mark.parametrize(("model", "message", "hint"), CONTRACT, ids=[name for name, *_ in CONTRACT])
def test_a_model_that_breaks_the_contract(
    check: bool, model: str, message: str, hint: str, here: Path, typed: Typed
) -> None:
    before, place = listing(here), [name for name, *_ in CONTRACT].index(model)
    verb = f"check M {FEW}" if check else OTHERS[0 if model == "five" else place % len(OTHERS)]
    code, said = typed(verb.replace("M ", f"my_nets:{model} ", 1))
    assert code == 1
    assert message in said
    assert hint in said
    assert "a fault of Hauberk" not in said
    assert listing(here) == before


NO_GRADIENT = ("gives no gradient", "--attack square")
VERBS = [  # what is typed, what is said, and, where there is one, the command that the user meant
    (f"attack my_nets:detached {ATTACK}", NO_GRADIENT, f"attack my_nets:detached {FEW} --threat linf:0.1 --attack "
     "square,queries=3"),
    (f"attack my_nets:Cut {ATTACK}", NO_GRADIENT, None),
    (f"attack my_nets:Inference {ATTACK}", NO_GRADIENT, None),
    (f"attack my_nets:Cut {FEW} --threat l2:0.1 --attack deepfool", NO_GRADIENT, None),
    (f"certify my_nets:Cut {FEW} --method local_lipschitz,threat=linf:0.1", NO_GRADIENT, None),
    (f"lipschitz my_nets:Cut {FEW}", NO_GRADIENT, None),
    (f"attack my_nets:Crowd {ATTACK}", ("depends on the other images", "fixed statistics"), f"attack my_nets:Crowd "
     f"{ATTACK} --tile 32"),
    (f"attack my_nets:Two {ATTACK}", ("answers otherwise where gradients are wanted", "requires_grad"), None),
    (f"attack my_nets:Leaves {ATTACK}", (": SystemExit: 3", "call it on such images yourself"), None),
    (f"attack my_nets:Late {ATTACK}", (": ValueError: no gradients here", "correct it"), None),
    (f"attack my_nets:chances {ATTACK}", ("got probabilities", "softmax"), None),
    (f"certify my_nets:nans {NOISE}", ("returned NaN", "weights"), None),
    (f"check my_nets:twenty {FEW}", ("20 outputs, the data 10 classes", "always wrong"), None),
    (f"attack my_nets:good {FEW} --threat linf:0.1 --suite fst", ("--suite expects", "did you mean 'fast'?"), None),
    (f"attack my_nets:good {FEW} --threat linf:0.1 --suite custom", ("--suite expects", "fast"), None),
    (f"attack my_nets:good {ATTACK} --threads 0", ("--threads expects 1", "cores"), None),
    (f"attack my_nets:good {ATTACK} --images 0", ("at least 1, got 0", "--images all"), None),
    (f"attack my_nets:good {ATTACK} --images -3", ("at least 1, got -3", "--images all"),
     f"attack my_nets:good {ATTACK} --images 3"),
    (f"attack my_nets:good {ATTACK} --images nan", ("a number or all", "1000"), None),
    (f"attack my_nets:good {ATTACK} --images 7", ("has 6 test images", "fewer"), f"attack my_nets:good {ATTACK}"),
    (f"attack my_nets:good {ATTACK} --images 5 --images 6", ("--images is given 2 times", "once"), None),
    (f"attack my_nets:good {ATTACK} --tile 0", ("--tile", "greater than or equal to 1"), None),
    (f"attack my_nets:good {ATTACK} --tile 1000000000000", ("--tile", "less than or equal to"), None),
    (f"attack my_nets:good {ATTACK} --split tset", ("--split", "'test' or 'val'"), None),
    (f"attack my_nets:good {ATTACK} --shard 2/2", ("in 0..n-1", "--shard 0/2"), None),
    (f"attack my_nets:good {ATTACK} --imags 5", ("No such option", "hauberk attack --help"), None),
    (f"attack my_nets:good {ATTACK} more", ("unexpected extra argument", "hauberk attack --help"), None),
    ("attack", ("Missing argument", "hauberk attack --help"), None),
    ("atack", ("No such command", "hauberk --help"), None),
    (f"attack my_nets:good {ATTACK} -o ''", ("--out expects a folder", "runs/a"), None),
    (f"attack my_nets:good {ATTACK} -o once.yaml", ("a run is a folder", "--out"), None),
    (f"attack my_nets:good {FEW} --threat linf:nan", ("finite", "explain linf"), None),
    (f"attack my_nets:good {FEW} --threat linf:-1", ("greater than or equal to 0", "explain linf"), None),
    (f"attack my_nets:good {FEW} --threat linf:", ("expected a number", "8/255"), None),
    (f"attack my_nets:good {FEW} --threat linf", ("eps is missing", "explain linf"), None),
    (f"attack my_nets:good {FEW} --attack fgsm", ("no threat was given", "--threat linf:8/255"),
     f"attack my_nets:good {FEW} --attack fgsm,threat=linf:0.1"),
    (f"attack my_nets:good {FEW} --threat linf:0.1 --attack fgsm,threat=l2:1", ("l2:1, --threat says linf:0.1", "one"),
     f"attack my_nets:good {FEW} --attack fgsm,threat=l2:1"),
    (f"attack my_nets:good {FEW} --threat linf:0.1 --attack pgd,steps=3,steps=4", ("steps twice", "once"), None),
    (f"attack my_nets:good {FEW} --threat linf:0.1 --attack pgd,stepz=3", ("no setting 'stepz'", "'steps'"), None),
    (f"attack my_nets:good {FEW} --threat linf:0.1 --attack 'pgd,steps=['", ("pgd,steps=[", "YAML"), None),
    (f"attack my_nets:good {FEW} --threat linf:0.1 --attack pgd,", ("name,key=value", "apgd,steps=50"), None),
    (f"attack my_nets:good {FEW} --threat linf:0.1 --attack autoattack,version=custom", ("at least one", ""), None),
    ("check my_nets:good --data digit", ("no dataset called 'digit'", "'digits'"), "check my_nets:plain --data digits"),
    ("attack my_nets:good --threat linf:0.1", ("needs --data", "--data cifar10"), None),
    ("attack my_nets:good --data npz --threat linf:0.1", ("file is missing", "explain npz"), None),
    ("attack my_nets:good --data npz,file=no.npz,layout=NHW --threat linf:0.1", ("not there", "numpy.savez"), None),
    ("attack my_nets:good --data digits,size=5 --threat linf:0.1", ("no setting 'size'", "none"), None),
    (f"attack my_nets {ATTACK}", ("no run directory", "module:factory"), f"attack my_nets:good {ATTACK}"),
    (f"attack my_nets.py:good {ATTACK}", ("the file my_nets.py", "write my_nets:good"), None),
    (f"attack nets:good {ATTACK}", ("No module named 'nets'", "folder that holds it"), None),
    (f"certify my_nets:scripted {FEW}", ("no deterministic certificate", "--method smoothing"), None),
    (f"certify my_nets:plain {FEW} --method smothing --sigma 0.25", ("'smothing'", "'smoothing'"), None),
    (f"certify my_nets:plain {FEW} --method smoothing", ("sigma or noise is missing", "explain smoothing"),
     f"certify my_nets:plain {NOISE}"),
    (f"certify my_nets:plain {FEW} --method smoothing --sigma nan", ("finite", "explain gaussian"), None),
    (f"certify my_nets:plain {FEW} --method smoothing,sigma=0.25 --sigma 0.5", ("0.25, --sigma says 0.5", "one"), None),
    (f"certify my_nets:plain {FEW} --sigma 0.5", ("no setting 'sigma'", "norm"), None),
    (f"certify my_nets:plain {FEW} --norm l7", ("--norm expects l1, l2 or linf", "--norm l1"),
     f"certify my_nets:plain {FEW} --norm l1"),
    (f"certify my_nets:plain {FEW} --bound exactt", ("--bound expects", "did you mean 'exact'?"), None),
    (f"certify my_nets:plain {FEW} --bound exact", ("of a mix", "leave it out"), None),
    (f"certify my_nets:plain {FEW},val_size=0 --split val", ("no val images", "val_size"),
     f"certify my_nets:plain {FEW},val_size=0"),
    (f"check my_nets:plain {FEW} --diagnose", ("needs a threat", "--threat linf:8/255"), None),
    (f"lipschitz my_nets:plain {FEW} --images -1", ("at least 1", "all"), f"lipschitz my_nets:plain {FEW} --images 1"),
    ("mix", ("one weight or one target", "--alpha"), None),
    ("mix --alpha 0.5", ("no models were given", "--accurate"), None),
    ("mix MIX --alpha nan", ("--alpha expects a weight in [0, 1]", "0.8"), None),
    ("mix MIX --alpha 0.5 --clean 0.5", ("one weight or one target", "--keep"), None),
    ("mix MIX --alpha 0.5 --choose nuts", ("--choose needs a target accuracy", "--keep"), "mix MIX --alpha 0.5"),
    ("mix MIX --clean 93", ("a share in (0, 1], got 93", "did you mean 93%?"), None),
    ("mix MIX --keep 93% --choose nutz", ("--choose expects", "'nuts'"), None),
    ("mix MIX --keep 93% --choose range", ("needs a --network", "--choose"), None),
    ("mix MIX --alpha 0.5 --accurate-scale 0", ("above 0", "--accurate-scale 2"), None),
    ("mix MIX --clean 0.5 --width 0.2", ("--width", "--network"), None),
    ("mix MIX --clean 0.5 --calibration-images 0", ("at least 1", "all"), None),
    (f"mix --accurate my_nets:good --robust my_nets:twenty --alpha 0.5 {FEW}", ("the robust model has 20", "same"),
     None),
    (f"mix --network no --accurate my_nets:good --clean 0.5 {FEW}", ("holds both", "leave out"), None),
    ("report no", ("not a run directory", "hauberk train"), None),
    ("bundle no", ("not a run directory", "hauberk train"), None),
    ("verify no", ("not a run directory", "hauberk train"), None),
    ("train no.yaml", ("no recipe", "hauberk list recipes"), None),
    ("train mine.yaml --set training.epochs", ("key=value", "training.epochs=5"), None),
    ("train mine.yaml --set =5", ("key=value", "training.epochs=5"), None),
    ("train mine.yaml --set evaluation.attacks.9.steps=3", ("a list of 2, got '9'", "from 0"), None),
    ("train mine.yaml --set evaluation.attacks.x.steps=3", ("a list of 2, got 'x'", "from 0"), None),
    ("train mine.yaml --set seed=1 --set seed=2", ("given twice", "once"), None),
    ("train mine.yaml --set seed=99999999999999999999999999", ("seed", "less than"), None),
    ("train mine.yaml --set model.num_classes=5", ("num_classes is 5, that of the data 10", "leave"), None),
    ("train mine.yaml --set model.batch_norm=abc", ("batch_norm", "small_cnn"), None),
    ("train mine.yaml --set training.batch_size=100000", ("do not fill one batch", "smaller batch_size"), None),
    ("train mine.yaml --threads -1", ("--threads expects", "cores"), None),
    ("sweep once.yaml --budget nan", ("--budget expects", "nan"), None),
    ("sweep once.yaml --shard 3/2", ("in 0..n-1", "--shard 0/2"), None),
    ("sweep twice.yaml --dry-run", ("two lines have the label", "label"), None),
    ("list atack", ("no family 'atack'", "'attacks'"), None),
    ("explain apgdd", ("'apgdd'", "'apgd'"), None),
    ("demo --threads 0", ("--threads expects", "cores"), None),
]


def short(typed: str) -> str:
    """A name of a test without blanks."""
    for long, name in ((ATTACK, "ATTACK"), (NOISE, "NOISE"), (FEW, "FEW"), ("my_nets:", ""), (" ", "_")):
        typed = typed.replace(long, name)
    return typed


@pytest.mark.parametrize(("line", "words", "meant"), VERBS, ids=[short(typed) for typed, *_ in VERBS])
def test_a_misuse(line: str, words: tuple[str, str], meant: str | None, here: Path, typed: Typed) -> None:
    before, pair = listing(here), f"--accurate my_nets:good --robust my_nets:plain {FEW}"
    code, said = typed(line.replace("MIX", pair))
    assert code in (1, 2)
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert "a fault of Hauberk" not in said
    assert listing(here) == before
    if meant is not None:
        code, said = typed(meant.replace("MIX", pair))
        assert code == (1 if meant.startswith("check") else 0), said  # these nets are no better than chance


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records(folder: Path, kind: str) -> list[dict]:
    return [part.unit | part.facts | {"ids": part.column("id").tolist()} for part in read_all(folder / "records", kind)]


@pytest.fixture
def run(tiny_run: Path, here: Path) -> Path:
    """A run of the user's own that a test may change, with an evaluation block unlike the defaults."""
    folder = Path(shutil.copytree(tiny_run, here / "tiny"))
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["evaluation"] |= {"split": "val", "seed": 7, "tile": 16, "images": 8, "gallery": 0}
    shutil.rmtree(folder / "records")
    Run.create(folder, recipe)
    Run(folder).update(hashes=Run(folder).info["hashes"] | {"records": {}}, plans={})
    return folder


def test_the_recipe_says_what_is_evaluated_and_options_replace_it(run: Path, typed: Typed) -> None:
    for verb, kind in (("attack", "attack"), ("certify", "certificate")):
        assert typed(f"{verb} tiny")[0] == 0
        (found,) = records(run, kind)
        assert (found["split"], found["seed"], found["tile"], len(found["ids"])) == ("val", 7, 16, 8)
    assert not any(part.column("image").any() for part in read_all(run / "records", "attack"))  # no gallery
    assert typed("certify tiny --split test --seed 3 --images 4")[0] == 0
    found = {(r["split"], r["seed"], r["tile"], len(r["ids"])) for r in records(run, "certificate")}
    assert found == {("val", 7, 16, 8), ("test", 3, 16, 4)}
    assert typed("certify tiny --images all --split val")[0] == 0
    assert sum(len(r["ids"]) for r in records(run, "certificate") if r["seed"] == 7) >= 200


def test_misuse_of_a_run_leaves_it_as_it_was(run: Path, here: Path, typed: Typed) -> None:
    before = files(run)
    for line, words in (
        ("attack tiny --data mnist", ("'digits'", "leave --data out")),
        ("attack tiny -o other", ("stay in tiny", "leave -o out")),
        ("attack tiny --suite fast", ("no threat was given", "--threat")),
        ("certify tiny --sigma 0.5", ("no setting 'sigma'", "norm")),
        ("certify tiny --bound exact", ("of a mix", "leave it out")),
        ("report tiny tiny", ("named twice", "once")),
        ("report tiny -o tiny", ("expects an HTML file", ".html")),
        ("report tiny -o tiny/run.json", ("expects an HTML file", ".html")),
        ("mix --accurate tiny --robust tiny --keep 93% --accurate-scale 2 --choose nuts", ("finds the scales", "out")),
        ("mix --network tiny --clean 0.5", ("not a mixing network", "train one")),
        ("train no_such_recipe -o tiny", ("no recipe", "list recipes")),
        ("train mine.yaml -o tiny", ("another recipe: its name is 'tiny', this one's is 'mine'", "--out")),
    ):
        code, said = typed(line)
        assert code == 1, said
        assert all(word in said for word in words), said
        assert files(run) == before, line


def test_a_report_without_a_name_is_a_new_file_here(run: Path, here: Path, typed: Typed) -> None:
    assert typed("certify tiny")[0] == 0
    before = files(run)
    for name in ("report.html", "report-2.html"):
        code, said = typed("report tiny")
        assert code == 0, said
        assert (here / name).stat().st_size > 100_000
    assert files(run) == before


def test_one_model_on_two_data_sets_has_two_folders(here: Path, typed: Typed) -> None:
    for data in ("digits", FEW.removeprefix("--data ")):
        assert typed(f"certify my_nets:plain --data {data} --images 2")[0] == 0
    first, second = sorted(path.name for path in (here / "runs").iterdir())
    assert first == "my_nets-plain-digits"
    assert second.startswith("my_nets-plain-few-")
    code, said = typed(f"certify my_nets:plain {FEW} -o runs/my_nets-plain-digits")
    assert code == 1
    assert "its data.name is 'digits', this one's is 'npz'" in said


def test_a_shard_without_work_is_no_error(here: Path, typed: Typed) -> None:
    code, said = typed(f"attack my_nets:good {ATTACK} --shard 5/9")
    assert code == 0
    assert "nothing to do" in said
    assert not (here / "runs").exists()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites of two steps a stage: what the commands say is looked at, not what the attacks find."""

    def stages(threat: Threat) -> dict[str, tuple[Attack, ...]]:
        return {"fast": (APGD(threat, steps=2), APGD(threat, steps=2, loss="dlr", targets=2))}

    monkeypatch.setattr(autoattack, "sequences", stages)
    monkeypatch.setattr("hauberk.verbs.attack.OTHER_STEPS", 2)


def next_lines(said: str) -> list[str]:
    found = [line.strip() for line in said.splitlines()]
    return [line.partition(": hauberk ")[2] for line in found if line.startswith(("next: hauberk", "page: hauberk"))]


@pytest.mark.parametrize(
    "first",
    [
        "lipschitz my_nets:plain FEW --images 1",
        "certify my_nets:plain FEW",
        f"attack my_nets:good {ATTACK} -o 'a folder'",
        "mix --accurate my_nets:good --robust my_nets:plain --alpha 0.5 FEW -o 'a mix' --threat l2:0.1",
        "lipschitz tiny --images 1",
        "bundle tiny -o tied",
        "train tiny.yaml --set training.epochs=1 -o trained",
        "check my_nets:plain FEW",
        "compare tiny other",
        "list models",
        "sweep once.yaml --dry-run",
    ],
)
@pytest.mark.usefixtures("run", "brief")
def test_every_next_line_works(
    first: str, here: Path, tiny_recipe: Path, hauberk: Callable[..., tuple[int, str, str]]
) -> None:
    shutil.copy(tiny_recipe, here / "tiny.yaml")
    if first.startswith(("bundle", "compare")):
        assert hauberk("certify", "tiny")[0] == 0
        shutil.copytree("tiny", "other")
    waiting, done = [first.replace("FEW", FEW)], set()
    while waiting:
        line = waiting.pop()
        code, said, error = hauberk(*shlex.split(line))
        assert code == 0, f"{line}\n{said}{error}"
        assert said.splitlines()[-1].startswith("next: hauberk ") or line.startswith("explain"), f"{line}\n{said}"
        done.add(line)
        waiting += [new for new in next_lines(said) if new not in done]
    assert len(done) > 1


def test_an_unexpected_error_is_one_line_and_keeps_its_traceback(
    here: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(here))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("hauberk.cli.lipschitz._lines", None)
    code, said = typed(f"lipschitz my_nets:plain {FEW} --images 1")
    assert code == 1
    assert "error: unexpected TypeError: 'NoneType' object is not callable" in said
    (kept,) = here.glob("hauberk-error-*.txt")
    assert str(kept) in said.replace("\n", "")
    assert "Traceback" in kept.read_text()


@pytest.mark.parametrize("width", [60, 90, 160])
def test_messages_are_not_cut_or_decorated(
    width: int, here: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    _, said = typed(f"check my_nets:brain {FEW}")
    assert "my_nets:brain: not ready: see LOOK below" in said  # and no picture of a brain
    _, said = typed(f"attack my_nets:Cut {ATTACK}")
    assert len(said[said.index("error: ") :].splitlines()) == 2  # a terminal wraps it
