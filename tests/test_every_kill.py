"""A kill at every write of every verb: the same command again ends with the same bits.

A verb runs once in a process that notes, before every change to its folder, what the folder holds: what a kill at that
instant leaves.  Files that are being written are noted half written too.  From each of these folders the same command
runs again, and what it leaves is compared with what the undisturbed one left.

``HAUBERK_TEST_KILLS=all`` tries every state of the long verbs too, of which a sample is tried otherwise, and kills
processes at random times.
"""

import functools
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml

import hauberk
import hauberk.cli.app  # here, so that forks need not
import hauberk.cli.results
from hauberk import cli, compaction, recipes
from hauberk.attacks import FAB, FGSM, PGD, AutoAttack
from hauberk.data.files import download
from hauberk.recipes import Evaluation, parse
from hauberk.report import page
from hauberk.storage import LOCK
from hauberk.threats import L2
from hauberk.verbs import demo
from hauberk.verbs import mix as mixing

ALL = os.environ.get("HAUBERK_TEST_KILLS") == "all"
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
TIMES = {"timings", "seconds", "train_minutes", "images_per_second"}

TINY = """
name: NAME
data: {name: digits}
model: {name: lip_convnet, widths: [4], depth: 1, hidden: 8}
objective: {name: standard, temperature: 0.25}
training: {epochs: 2, steps_per_epoch: 2, batch_size: 16, lr: 0.3, validation_images: 16, checkpoint_minutes: 1.0e-9}
evaluation:
  images: 24
  tile: 4
  gallery: 2
  attacks:
    - {name: pgd, threat: "l2:0.5", steps: 2}
  certificates:
    - {name: lipschitz}
"""

MINE = """
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""

State = dict[str, bytes | None]  # what a folder holds: files, and None for folders
Command = Callable[[], object]


def typed(*arguments: object) -> Command:
    """A command, typed."""

    def run() -> None:
        sys.argv = ["hauberk", *map(str, arguments)]
        cli.main()

    return run


def recipe(name: str) -> bytes:
    return TINY.replace("NAME", name).encode()


# --- folders and processes -------------------------------------------------------------------------------------------


def held(folder: Path) -> State:
    """What the folder holds now."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def laid_out(state: State, folder: Path) -> None:
    """Make the folder hold this."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in state.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def forked(work: Command, folder: Path) -> int:
    """The number of a fork of this process that does the work, in that folder and without a word."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.chdir(folder)
        sys.stdout = sys.stderr = (folder.parent / "said").open("w", buffering=1)
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException as error:
        traceback.print_exception(error)
    finally:
        os._exit(code)


def ends(work: Command, folder: Path) -> State:
    """What the command leaves, which must succeed."""
    code = os.waitstatus_to_exitcode(os.waitpid(forked(work, folder), 0)[1])
    assert code == 0, (folder.parent / "said").read_text()[-2000:]
    return held(folder)


class Watcher:
    """Notes what the folder holds before every change, and with every file that is being written cut short."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.states, self.busy = folder, [held(folder)], False
        self.flush = os.fsync
        sys.addaudithook(self.audit)
        os.fsync = self.fsync

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and (arguments[2] or 0) & WRITING)
        if not self.busy and changes and isinstance(arguments[0], str | bytes | os.PathLike):
            path = Path(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100  (links stay)
            if path.is_relative_to(self.folder) and "__pycache__" not in path.parts:
                self.note()

    def fsync(self, handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            name = str(Path(f"/proc/self/fd/{handle}").readlink().relative_to(self.folder))
            before, after = self.states[-1].get(name) or b"", (self.folder / name).read_bytes()
            self.note({name: after[: (len(before) + len(after)) // 2]})
        self.flush(handle)

    def note(self, cut: State | None = None) -> None:
        self.busy = True
        self.states.append(held(self.folder) | (cut or {}))
        self.busy = False


# --- the check -------------------------------------------------------------------------------------------------------


class Bench:
    """A folder in which a command is killed in every way.

    Args:
        folder: where it works.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder / "work", folder / "states"

    def after(self, start: State, *commands: Command) -> State:
        """What commands leave that nothing disturbs."""
        laid_out(start, self.folder)
        for command in commands:
            ends(command, self.folder)
        return held(self.folder)

    def states(self, start: State, command: Command) -> list[State]:
        """Every different state from start to end; those that differ in lock files alone count as one, with them."""

        def watched() -> None:
            watcher = Watcher(self.folder)
            code: object = 0
            try:
                command()
            except SystemExit as stop:
                code = stop.code
            watcher.note()
            self.notes.write_bytes(pickle.dumps(watcher.states))
            sys.exit(code)  # type: ignore[arg-type]

        laid_out(start, self.folder)
        ends(watched, self.folder)
        found: dict[bytes, State] = {}
        for state in pickle.loads(self.notes.read_bytes()):
            key = state if ALL else {name: content for name, content in state.items() if Path(name).name != LOCK}
            found[pickle.dumps(key)] = max(found.get(pickle.dumps(key), state), state, key=len)
        return list(found.values())

    def check(self, start: State, command: Command, least: int, sample: int | None = None) -> State:
        """Kill the command at every write, or at some of them, run it again and compare; returns its end."""
        states = self.states(start, command)
        assert len(states) >= least
        whole = self.after(start, command)
        if sample is not None and not ALL:
            states = random.Random(0).sample(states, min(sample, len(states)))
        for state in states:
            same(self.after(state, command), whole, f"killed when there was {sorted(state)}")
        if ALL:
            self.at_random(start, command, whole)
        return whole

    def at_random(self, start: State, command: Command, whole: State) -> None:
        """Kill processes at random times until one ends by itself."""
        laid_out(start, self.folder)
        began = time.monotonic()
        ends(command, self.folder)
        length, moments = time.monotonic() - began, random.Random(len(start))
        for _ in range(10):
            laid_out(start, self.folder)
            for attempt in range(5):
                child = forked(command, self.folder)
                if attempt < 4:
                    time.sleep(length * moments.uniform(0.0, 0.9))
                    os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            same(ends(command, self.folder), whole, "killed at random times")


def same(left: State, whole: State, how: str) -> None:
    """Nothing is missing, nothing is left over, and every file has the same content."""
    assert sorted(left) == sorted(whole), how
    for name, content in whole.items():
        assert comparable(name, left[name]) == comparable(name, content), f"{name}, {how}"


def comparable(name: str, content: bytes | None) -> Any:
    """A file without the times that it keeps."""
    file = Path(name).name
    if content is None:
        return None
    if name.endswith(".json"):
        return without_times(json.loads(content))
    if file == "table.md":
        return [line.split(b"|")[:3] + line.split(b"|")[4:] for line in content.splitlines()]
    if file == "training.pt":  # the file is an archive, whose bytes depend on which strings are the same object
        return plain(torch.load(io.BytesIO(content), weights_only=True))
    if file == "metrics.jsonl":
        return [without_times(json.loads(line)) for line in content.splitlines()]
    return content


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """A checkpoint with its tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> State:
    """A folder with two trained runs, a and b."""
    folder = tmp_path_factory.mktemp("trained")
    for index, name in enumerate("ab"):  # in this process, so that all that is imported late is here before a fork
        (folder / f"{name}.yaml").write_bytes(recipe(name))
        run = hauberk.train(recipes.read(folder / f"{name}.yaml", [f"seed={index}"]), folder / name)
        torch.load(run.checkpoints / "training.pt", weights_only=True)
    start = held(folder)
    hauberk.evaluate(run)
    cli.results.lines(run.path)
    return start


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(hauberk.cli.app, "build", functools.cache(hauberk.cli.app.build))
    monkeypatch.setattr(hauberk.cli.app, "asked", lambda _: tuple(hauberk.cli.app.VERBS))
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
    typer.main.get_command(hauberk.cli.app.build(tuple(hauberk.cli.app.VERBS)))
    return Bench(tmp_path)


def test_train(bench: Bench, trained: State) -> None:
    bench.check({"a.yaml": recipe("a")}, typed("train", "a.yaml", "-o", "a"), least=25)


def test_attack(bench: Bench, trained: State) -> None:
    bench.check(trained, typed("attack", "a"), least=8)


def test_certify(bench: Bench, trained: State) -> None:
    bench.check(trained, typed("certify", "a"), least=8)


def test_records_that_are_joined(bench: Bench, trained: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a joined file and the end of those that it replaces, units are there twice."""
    monkeypatch.setattr(compaction, "FEW", 2)
    whole = bench.check(trained, typed("certify", "a"), least=12, sample=6)
    assert sum("certificate-" in name for name in whole) == 1


def test_certify_in_processes(bench: Bench, trained: State) -> None:
    """Units end in any order, and the driver alone writes."""
    bench.check(trained, typed("certify", "a", "--executor", "processes,workers=2"), least=8, sample=3)


def test_diagnose(bench: Bench, trained: State) -> None:
    bench.check(trained, lambda: hauberk.diagnose(hauberk.subject("a"), FGSM(L2(0.5)), few(Evaluation())), least=8)


def test_lipschitz(bench: Bench, trained: State) -> None:
    bench.check(trained, typed("lipschitz", "a", "--images", 1), least=4)


def test_mix(bench: Bench, trained: State) -> None:
    weight = ("--alpha", 0.8, "--images", 4, "--tile", 4, "-o", "m")
    bench.check(trained, typed("mix", "--accurate", "b", "--robust", "a", *weight), least=20, sample=14)


def test_mix_that_is_chosen(bench: Bench, trained: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "default_attack", FGSM)
    wish = ("--clean", 0.05, "--calibration-images", 8, "--threat", "l2:0.1", "--images", 4, "--tile", 4, "-o", "m")
    bench.check(trained, typed("mix", "--accurate", "b", "--robust", "a", *wish), least=20, sample=6)


def test_bundle_and_the_bundle_of_a_run_that_has_grown(bench: Bench, trained: State) -> None:
    bundle, certify = typed("bundle", "a", "-o", "c"), typed("certify", "a", "--images", 16)
    small = bench.after(trained, typed("certify", "a", "--images", 8))
    bundled = bench.check(small, bundle, least=10)
    bench.check(bench.after(bundled, certify), bundle, least=8, sample=5)


def test_report(bench: Bench, trained: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "render", lambda found, *_: f"a page about {len(found)} run")
    certified = bench.after(trained, typed("certify", "a", "--images", 4))
    bench.check(certified, typed("report", "a", "-o", "page/report.html"), least=4)


def test_a_model_of_ones_own(bench: Bench, trained: State) -> None:
    how = ("--data", "digits", "--threat", "l2:0.5", "--attack", "fgsm", "--images", 8)
    bench.check({"mine.py": MINE.encode()}, typed("attack", "mine:net", *how), least=10, sample=10)


VOTES = ("--data", "digits", "--method", "smoothing", "--sigma", 0.25, "--n", 32, "--images", 8)


def test_votes_of_a_model_that_has_changed(bench: Bench, trained: State) -> None:
    """Its new answers and records stand beside the old."""
    certify, changed = typed("certify", "mine:net", *VOTES), MINE.replace("manual_seed(0)", "manual_seed(1)").encode()
    before = bench.after({"mine.py": MINE.encode()}, certify)
    whole = bench.check(before | {"mine.py": changed}, certify, least=8, sample=5)
    assert sum("fingerprint-" in name for name in whole) == 2


def test_a_suite_between_its_stages(bench: Bench, trained: State) -> None:
    threat = L2(1e-4)  # some images stand
    suite = AutoAttack(threat, version="custom", attacks=(FGSM(threat), PGD(threat, steps=2), FAB(threat, steps=2)))
    attack: Command = lambda: hauberk.attack(hauberk.subject("a"), [suite], Evaluation(images=64))  # noqa: E731
    whole = bench.check(trained, attack, least=8, sample=6)
    assert sum("attack-" in name for name in whole) == 3


def test_download(bench: Bench) -> None:
    content = bytes(range(256)) * 16
    md5 = hashlib.md5(content).hexdigest()
    start: State = {"published": content}
    source = (bench.folder / "published").as_uri()
    bench.check(start, lambda: download(source, Path("data/cifar/file"), md5), least=5)


def test_sweep(bench: Bench, trained: State) -> None:
    table = b"{name: t, rows: [{recipe: a.yaml}, {recipe: b.yaml}]}"
    start = {"a.yaml": recipe("a"), "b.yaml": recipe("b"), "t.yaml": table}
    bench.check(start, typed("sweep", "t.yaml", "-o", "t"), least=60, sample=4)


def few(plan: Evaluation) -> Evaluation:
    return plan.model_copy(update={"images": 8, "tile": 8})


def test_demo(bench: Bench, trained: State, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: parse(yaml.safe_load(recipe(name))) for name in ("demo_standard", "demo_lipschitz")}
    monkeypatch.setattr(demo, "RECIPES", tuple(small))
    monkeypatch.setattr(demo, "ALPHAS", (0.9,))
    monkeypatch.setattr(recipes, "read", small.__getitem__)
    monkeypatch.setattr(page, "render", lambda found, *_: f"a page about {len(found)} runs")
    for module in (sys.modules[f"hauberk.verbs.{name}"] for name in ("attack", "certify", "mix")):
        real = module.setting_of
        monkeypatch.setattr(module, "setting_of", lambda target, plan, *of, real=real: real(target, few(plan), *of))
    bench.check({}, typed("demo", "-o", "d"), least=80, sample=4)


@pytest.mark.parametrize("verb", [("train", "c.yaml", "-o", "c"), ("certify", "a")], ids=lambda verb: verb[0])
def test_a_full_disk_is_one_sentence_and_what_was_finished_stays(
    bench: Bench, trained: State, verb: tuple[str, ...]
) -> None:
    start, command = trained | {"c.yaml": recipe("c")}, typed(*verb)
    whole = bench.after(start, command)
    for writes in (0, 2, 5, 8):

        def filling(left: list[int] = [writes]) -> None:  # noqa: B006  (each has its own)
            real = os.fsync

            def flush(handle: int) -> None:
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(28, "No space left on device")
                real(handle)

            os.fsync = flush
            command()

        laid_out(start, bench.folder)
        _, status = os.waitpid(forked(filling, bench.folder), 0)
        said = (bench.folder.parent / "said").read_text()
        assert os.waitstatus_to_exitcode(status) == 1, said
        assert said.count("No space left on device") == 1 and "Traceback" not in said
        same(ends(command, bench.folder), whole, f"full after {writes} writes")
