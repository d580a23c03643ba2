"""Changed inputs of every kind: one sentence or a right result, never a traceback, a hang, 2 GiB, or code that runs.

A few of each kind run by default.  ``HAUBERK_FUZZ=1000`` runs that many in all, ``HAUBERK_FUZZ_SEED`` others of them,
and ``HAUBERK_FUZZ_OUT`` names a file for a summary.
"""

import copy
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from hauberk import cli
from hauberk.data import load
from hauberk.errors import HauberkError
from hauberk.runs import Run
from hauberk.training import checkpoints

SECONDS, BYTES = 10, 2 << 30
SEED = int(os.environ.get("HAUBERK_FUZZ_SEED", "0"))
TOTAL = int(os.environ.get("HAUBERK_FUZZ", "0"))
SPEC = {"name": "own", "source": "planted_code:build"}
ODD: list[Any] = [
    None, True, -1, 0, 2**40, 10**30, -(10**30), float("nan"), float("inf"), 1e308, "", "x" * 6000, "../x",
    "/etc/passwd", "\x1b[31mred", "a\0b", "\u202e", [], {}, [[[]]], [1, "a", None], SPEC, {"name": "pgd"},
    {"name": "run", "path": "."}, {"base": SPEC}, [SPEC], "planted_code:build", "linf:nan", "linf:-1", "8/0", "1e400",
    "null", 0.5, 1, "abc", {"name": None},
]  # fmt: skip


# --- changes --------------------------------------------------------------------------------------------------------


def changed_bytes(content: bytes, dice: random.Random) -> bytes:
    """A few bytes other, more, or fewer."""
    data = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 5])):
        at = dice.randrange(len(data) + 1) if dice.random() < 0.5 else dice.randrange(min(len(data), 64) + 1)
        size = dice.choice([1, 2, 4, 8, 100])
        how = dice.randrange(6)
        if how == 0 and at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        elif how == 1:
            del data[at:]
        elif how == 2:
            data[at : at + size] = dice.choice([b"\0", b"\xff", b"\x7f"]) * size
        elif how == 3:
            data[at:at] = dice.randbytes(size)
        elif how == 4:
            del data[at : at + size]
        else:
            data[at : at + 8] = struct.pack(dice.choice("<>") + "Q", dice.choice([0, 2**31, 2**40, 2**63, 2**64 - 1]))
    return bytes(data)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a nested value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, v in inner for p in places(v, (*path, key)))]


def changed_value(value: Any, dice: random.Random) -> Any:
    """Another value at one place, a place less, or one more."""
    found = copy.deepcopy(value)
    path = dice.choice(places(found)[1:] or [()])
    if not path:
        return dice.choice(ODD)
    block = found
    for key in path[:-1]:
        block = block[key]
    how = dice.randrange(5)
    if how == 0:
        del block[path[-1]]
    elif how == 1 and isinstance(block, dict):
        block[dice.choice(["extra", "name", "source", "", "../x", "\x1b[0m"])] = dice.choice(ODD)
    else:
        block[path[-1]] = dice.choice(ODD)
    return found


def changed_text(text: str, dice: random.Random) -> str:
    """A line twice, a line less, a line of another kind, or other bytes."""
    lines = text.splitlines()
    at = dice.randrange(len(lines))
    how = dice.randrange(5)
    if how == 0:
        lines.insert(at, lines[at])
    elif how == 1:
        del lines[at]
    elif how == 2:
        code = "!!python/object/apply:os.system [touch planted]"
        lines.insert(at, dice.choice(["a: &a [*a]", "- x", code, "\t", "a: " + "[" * 3000, "<<: *b", "%YAML 9"]))
    else:
        return changed_bytes(text.encode(), dice).decode(errors="replace")
    return "\n".join(lines)


# --- what is changed ------------------------------------------------------------------------------------------------

Case = Callable[[Path, random.Random, Path, Path], None]


def hauberk(*arguments: object, refuses: bool = False) -> None:
    """Run a command; ``refuses`` says that only a refusal is right."""
    sys.argv = ["hauberk", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code or 0
    text = out.getvalue() + err.getvalue()
    odd = [c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n"]
    wrong = [w for w in ("traceback", "out of memory", "a fault of hauberk", "your own code") if w in text.lower()]
    assert not wrong and not odd and code in (0, 1, 2), f"{sys.argv[1:]} ends with {code}, {odd}: {text[-3000:]}"
    assert not code or text.strip(), f"{sys.argv[1:]} fails without a word"
    assert not refuses or code, f"{sys.argv[1:]} takes what it should refuse: {text[-1000:]}"


FEW = ("--set", "training.epochs=1", "--set", "training.steps_per_epoch=1", "--set", "training.validate_every=0")


def recipe(here: Path, dice: random.Random, run: Path, source: Path) -> None:
    text = source.read_text()
    if dice.random() < 0.7:
        text = yaml.safe_dump(changed_value(yaml.safe_load(text), dice))
    else:
        text = changed_text(text, dice)
    (here / "r.yaml").write_text(text, errors="surrogatepass")
    if dice.random() < 0.5:
        hauberk("train", here / "r.yaml", "-o", here / "out", *FEW)
    else:
        (here / "t.yaml").write_text(yaml.safe_dump({"name": "t", "rows": [{"recipe": str(here / "r.yaml")}]}))
        hauberk("sweep", here / "t.yaml", "--dry-run", "-o", here / "out")


COMMANDS = [
    "attack RUN --attack pgd,steps=1 --threat linf:0.1 --images 4", "certify RUN --images 4",
    "lipschitz RUN --images 2", "check RUN --images 10", "verify RUN", "verify RUN --weights",
    "report RUN -o page.html", "mix --accurate RUN --robust RUN --alpha 0.5 --images 4 -o out", "bundle RUN -o bundle",
    "list attacks", "explain pgd", "certify RUN --method smoothing --sigma 0.25 --n 100 --images 2",
    "train RECIPE -o out --set training.epochs=1",
    "attack RUN --attack apgd,steps=2 --attack fgsm --threat l2:0.1 --images 1",
]  # fmt: skip
WORDS = ["-1", "0", "nan", "inf", "1e400", str(2**40), str(10**30), "", "../x", "/dev/zero", "a:b:c", "linf:8",
         "linf:nan", "x,y", "x=", "=", ",", "pgd,steps=", "pgd,steps=[[", "lipschitz,norm=l9", "1/0", "0/0", "-",
         "--", ".", "ü", "{", "]", "smoothing,n=-1", "apgd,loss=own", "RECIPE", "model=own"]  # fmt: skip
FLAGS = ["--threads", "--tile", "--seed", "--split", "--images", "--shard", "--data", "--norm", "-o", "--alpha", "--n"]


def options(here: Path, dice: random.Random, run: Path, source: Path) -> None:
    command = dice.choice(COMMANDS).split()
    at = dice.randrange(1, len(command))
    how = dice.randrange(4)
    if how == 0:
        command[at] = dice.choice(WORDS)
    elif how == 1:
        del command[at]
    elif how == 2:
        command[at:at] = [dice.choice(FLAGS), dice.choice(WORDS)]
    else:
        command[at:at] = ["--set" if command[0] == "train" else "--attack", dice.choice(WORDS)]
    target = shutil.copytree(run, here / "run")
    hauberk(*(str(target) if word == "RUN" else str(source) if word == "RECIPE" else word for word in command))


def data_set(here: Path, dice: random.Random, files: dict[str, bytes], description: dict[str, Any]) -> None:
    """Change one file of a data set and load it."""
    victim = dice.choice(sorted(files))
    for name, content in files.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(changed_bytes(content, dice) if name == victim else content)
    spec = changed_value(description, dice) if dice.random() < 0.2 else description
    try:
        found = load(spec, here)
    except HauberkError:
        return
    found.test.batch(slice(0, 2))


def npz(here: Path, dice: random.Random, run: Path, source: Path) -> None:
    numbers = np.random.default_rng(0)
    arrays = {
        "x_train": numbers.integers(0, 256, (20, 8, 8, 3), np.uint8), "y_train": np.arange(20) % 4,
        "x_test": numbers.random((8, 8, 8, 3)), "y_test": np.arange(8) % 4,
    }  # fmt: skip
    if dice.random() < 0.4:
        name = dice.choice(list(arrays))
        odd = [np.array([10**9] * 20), np.array(["a"] * 8), np.zeros((20, 0)), np.array(3), np.zeros(20, "M8[s]"),
               np.full((8, 8, 8, 3), np.nan), np.array([-1] * 20), np.zeros((20, 8, 8, 3), complex),
               np.array([None] * 8), np.zeros(8, [("a", int)])]  # fmt: skip
        arrays[name] = dice.choice(odd)
    buffer = io.BytesIO()
    dice.choice([np.savez, np.savez_compressed])(buffer, **arrays)
    data_set(here, dice, {"own.npz": buffer.getvalue()}, {"name": "npz", "file": "own.npz", "layout": "NHWC"})


def idx(here: Path, dice: random.Random, run: Path, source: Path) -> None:
    files = {}
    for part, count in (("train", 40), ("t10k", 20)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        files[f"{part}-images-idx3-ubyte"] = struct.pack(">IIII", 0x803, *pixels.shape) + pixels.tobytes()
        files[f"{part}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count))
    if dice.random() < 0.5:
        files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    data_set(here, dice, files, {"name": "mnist", "verify": False, "val_size": 10})


class Planted:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {Path.cwd() / 'planted'}",)


def pickles(here: Path, dice: random.Random, run: Path, source: Path) -> None:
    files = {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = np.random.default_rng(1).integers(0, 256, (10, 3072), np.uint8)
        batch: dict[Any, Any] = {b"data": pixels, b"labels": list(range(10))}
        if dice.random() < 0.2:
            odd = [Planted(), Planted, os.system, [2**70], *ODD[:6]]
            batch[dice.choice([b"extra", b"labels", b"data", 3, (b"a",)])] = dice.choice(odd)
        files[f"cifar-10-batches-py/{name}"] = pickle.dumps(batch, dice.choice([0, 2, 4, 5]))
    data_set(here, dice, files, {"name": "cifar10", "verify": False, "val_size": 10})


def folders(here: Path, dice: random.Random, run: Path, source: Path) -> None:
    files = {}
    for part, count in (("train", 4), ("test", 2)):
        for k in range(2 * count):
            mode = dice.choice(["L", "RGB", "RGBA", "P", "1"])
            image = Image.fromarray(np.random.default_rng(k).integers(0, 256, (9, 9, 3), np.uint8)).convert(mode)
            ending = dice.choice(["PNG", "WEBP"] if mode != "L" else ["PNG", "JPEG"])
            if ending == "WEBP":
                image = image.convert("RGB")
            buffer = io.BytesIO()
            image.save(buffer, dice.choice([ending, ending, "GIF"]))
            files[f"own/{part}/class{k % 2}/{k}.{ending.lower()}"] = buffer.getvalue()
    data_set(here, dice, files, {"name": "image_folder", "folder": "own", "size": 8})


def checkpoint(here: Path, dice: random.Random, run: Path, source: Path) -> None:
    target = shutil.copytree(run, here / "run")
    path = dice.choice(sorted(p for p in (target / "checkpoints").iterdir() if p.suffix != ".json"))
    content = path.read_bytes()
    path.write_bytes(changed_bytes(content, dice))
    if path.suffix != ".safetensors":
        hauberk("train", source, "-o", target)
        checkpoints.load(path, {})
    elif path.read_bytes() != content:
        try:
            Run.open(target).load_model()
        except HauberkError:
            return
        raise AssertionError("changed weights were loaded")


def settings(name: str) -> Case:
    """A file of a run with a value or some bytes changed, which verify, report and a verb that loads the model see."""

    def case(here: Path, dice: random.Random, run: Path, source: Path) -> None:
        target = shutil.copytree(run, here / "run")
        path = target / name
        value = yaml.safe_load(path.read_text())
        dump = yaml.safe_dump if name.endswith("yaml") else json.dumps
        if dice.random() < 0.7:
            path.write_text(dump(changed_value(value, dice)), errors="surrogatepass")
        else:
            path.write_bytes(changed_bytes(path.read_bytes(), dice))
        try:
            kept = yaml.safe_load(path.read_text()) == value
        except Exception:
            kept = False
        hauberk("verify", target, refuses=not kept and name != "run.json")
        hauberk("report", target, "-o", here / "page.html")
        hauberk("certify", target, "--images", 2)

    return case


def records(here: Path, dice: random.Random, run: Path, source: Path) -> None:
    target = shutil.copytree(run, here / "run")
    path = dice.choice(sorted((target / "records").glob("*.parquet")))
    content = path.read_bytes()
    if dice.random() < 0.6:
        path.write_bytes(changed_bytes(content, dice))
    else:  # still Parquet, and still named by a key
        table = pq.read_table(path)
        head = json.loads(table.schema.metadata[b"hauberk"])
        if dice.random() < 0.5:
            head = changed_value(head, dice)
        if dice.random() < 0.5:
            name = dice.choice(table.column_names)
            fewer = table.slice(dice.randrange(3), dice.randrange(9))
            table = table.drop_columns([name]) if dice.random() < 0.5 else fewer
        pq.write_table(table.replace_schema_metadata({b"hauberk": json.dumps(head).encode()}), path)
    hauberk("verify", target, refuses=path.read_bytes() != content)
    hauberk("report", target, "-o", here / "page.html")


KINDS: dict[str, Case] = {
    "recipe": recipe, "options": options, "npz": npz, "idx": idx, "pickles": pickles, "folders": folders,
    "checkpoint": checkpoint, "run.json": settings("run.json"), "config.json": settings("checkpoints/config.json"),
    "recipe.yaml": settings("recipe.yaml"), "records": records,
}  # fmt: skip


# --- trying them ----------------------------------------------------------------------------------------------------


def watched(case: Case, here: Path, number: int, run: Path, source: Path) -> str:
    """What is wrong with one case; empty if nothing is."""
    here.mkdir()
    os.chdir(here)
    (here / "planted_code.py").write_text(f"open({str(here / 'planted')!r}, 'w')\n")
    started = time.process_time()
    try:
        case(here, random.Random(f"{SEED}-{number}"), run, source)
    except HauberkError:
        pass
    except BaseException:
        return traceback.format_exc()[-4000:]
    finally:
        os.chdir(here.parent)
    problem = "code ran" if (here / "planted").exists() else ""
    if time.process_time() - started > SECONDS:
        problem = f"it took {time.process_time() - started:.0f} s"
    shutil.rmtree(here)
    return problem


def tried(case: Case, numbers: list[int], folder: Path, run: Path, source: Path) -> list[tuple[int, str]]:
    """The cases that go wrong, tried in a process of their own: it may hang, crash, or run out of its 2 GiB."""
    problems = []
    log = folder / "log"
    while numbers:
        child = os.fork()
        if not child:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, resource.RLIM_INFINITY))
            for number in numbers:
                signal.alarm(12 * SECONDS)  # by the clock, on a busy machine; a hang ends the process
                with log.open("a") as handle:
                    handle.write(json.dumps([number, "started"]) + "\n")
                problem = watched(case, folder / str(number), number, run, source)
                with log.open("a") as handle:
                    handle.write(json.dumps([number, problem]) + "\n")
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        log.unlink()
        problems += [(number, problem) for number, problem in lines if problem not in ("", "started")]
        finished = {number for number, problem in lines if problem != "started"}
        if status:
            last = lines[-1][0]
            problems.append((last, f"the process ended with {os.waitstatus_to_exitcode(status)}"))
            finished.add(last)
        numbers = [number for number in numbers if number not in finished]
    return problems


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
@pytest.mark.parametrize("kind", KINDS)
def test_changed_inputs(kind: str, tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    count = -(-TOTAL // len(KINDS)) if TOTAL else 4
    first = 1_000_000 * list(KINDS).index(kind)
    problems = tried(KINDS[kind], list(range(first, first + count)), tmp_path, tiny_run, tiny_recipe)
    if out := os.environ.get("HAUBERK_FUZZ_OUT"):
        path = Path(out)
        known = json.loads(path.read_text()) if path.exists() else {"seed": SEED, "kinds": {}}
        known["kinds"][kind] = {"inputs": count, "failures": len(problems)}
        path.write_text(json.dumps(known, indent=2) + "\n")
    assert not problems, "\n\n".join(f"{kind} {number}: {problem}" for number, problem in problems)
