"""The terminal: one bar on any width, plain lines elsewhere, a first line at once, and word from inside a unit."""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hauberk
from hauberk import pulse
from hauberk.attacks import PGD
from hauberk.cli import console, lastline
from hauberk.cli.bar import fitted
from hauberk.cli.openings import DEEDS, opening
from hauberk.evaluation import work
from hauberk.evaluation.work import Step
from hauberk.recipes import Plan
from hauberk.threats import Linf
from hauberk.training.progress import Progress

ERASE = "\r\x1b[2K"
Terminal = Callable[[int], Callable[[], str]]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Make stderr a terminal of some columns; what is returned reads what it was sent."""
    opened = []

    def make(columns: int) -> Callable[[], str]:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        stream = os.fdopen(slave, "w")
        opened.append((master, stream))
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setattr(console, "DRAWN_SECONDS", 0.0)

        def read() -> str:
            stream.flush()
            said = b""
            while select.select([master], [], [], 0.05)[0]:
                said += os.read(master, 65536)
            return said.decode().replace("\r\n", "\n")

        return read

    yield make
    for master, stream in opened:
        stream.close()
        os.close(master)
    console.LAST.leave()


def training(steps: int = 8) -> Iterator[Progress]:
    terms = {"loss": 1.25, "natural_loss": 1.0, "robust_loss": 0.25, "accuracy": 0.5, "robust_accuracy": 0.125}
    for step in range(1, steps + 1):
        yield Progress(step // 3, 3, step, steps, terms, {}, 1234.5, 100.0 - step)


def states(line: str) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", state) for state in line.split(ERASE)[1:]]


@pytest.mark.parametrize("columns", [24, 40, 80, 100, 170, 300])
def test_training_is_one_bar_on_a_terminal_of_any_width(columns: int, terminal: Terminal) -> None:
    read, reporter = terminal(columns), console.Reporter(first="device: cpu", name="a")
    for progress in training():
        reporter.training(progress)
    first, line, rest = read().split("\n")
    assert (first, rest) == ("device: cpu", "")
    assert len(states(line)) == 8
    assert all(0 < len(state) < columns for state in states(line))
    assert "100%" in states(line)[-1]
    assert "\x1b[?25l" not in line  # a kill would leave the cursor hidden
    assert (columns < 80) or "━" * 8 in states(line)[-1]


def test_what_does_not_fit_is_left_out_and_the_most_important_stays() -> None:
    details = ["left 1:00", "loss 1.25", "90 images/s"]
    assert fitted("epoch 1/3", 0.5, details, 200).endswith("50%  left 1:00  loss 1.25  90 images/s")
    assert "left 1:00" in fitted("epoch 1/3", 0.5, details, 45)
    assert "images/s" not in fitted("epoch 1/3", 0.5, details, 45)
    assert len(fitted("a very long name of an attack", 0.5, details, 20)) <= 19


@pytest.mark.parametrize("why", ["NO_COLOR", "TERM", "background", "another"])
def test_plain_lines_where_no_line_can_be_taken_back(
    why: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reporter = terminal(80), console.Reporter(name="a 1/2")
    if why == "background":
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: -1)
    elif why == "another":
        other = lastline.LastLine()
        assert other.mine()
    else:
        monkeypatch.setenv(why, "dumb")
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(console, "PLAIN_SHARE", 0.0)
    for done in range(1, 4):
        reporter.evaluating(Step(done, 3, 2.0, "attack pgd"))
    assert read().splitlines() == [
        "a 1/2  attack pgd   33%  1/3  left 0:04", "a 1/2  attack pgd   67%  2/3  left 0:01",
        "a 1/2  attack pgd  100%  3/3  in 0:02",
    ]  # fmt: skip
    if why == "another":
        other.leave()
        assert console.LAST.mine()  # the next bar is ours


def test_in_a_pipe_there_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = console.Reporter()
    for progress in training():
        reporter.training(progress)
    said = capsys.readouterr().err
    assert said.count("\n") == 1  # the last one; others come every ten seconds
    assert "\x1b" not in said and "\r" not in said


def test_the_first_plain_line_does_not_wait_for_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.5, 1.5, 5.0, 12.0, 13.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    reporter = console.Reporter()
    for done in range(1, 6):
        reporter.evaluating(Step(done, 9, 2.0, "attack pgd"))
    assert [line.split("  ")[2] for line in capsys.readouterr().err.replace("   ", "  ").splitlines()] == ["2/9", "4/9"]


def test_lines_and_errors_do_not_run_into_the_bar(terminal: Terminal) -> None:
    read, reporter = terminal(80), console.Reporter()
    reporter.evaluating(Step(1, 3, 2.0, "attack pgd"))
    console.error_line("no", "yes")
    said = read()
    assert said.endswith(f"{ERASE}\x1b[1;31merror:\x1b[0m no\n  yes\n")


def test_word_comes_from_inside_a_unit_and_what_it_takes_at_most_before(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "BEATS", 0.0)
    steps: list[Step] = []
    target = hauberk.subject(Path(shutil.copytree(tiny_run, tmp_path / "copied")))
    shutil.rmtree(target.run.records)
    hauberk.attack(target, [PGD(Linf(0.01), steps=12)], Plan(images=16, tile=16), report=steps.append)
    ahead, *inside, last = steps
    assert ahead.ahead and ahead.total == 16 and 0.0 < ahead.seconds < 600.0
    shares = [step.inside for step in inside if not step.news]
    assert len(shares) >= 12
    assert shares == sorted(shares) and 0.0 < shares[0] < 0.2 and 0.5 < shares[-1] <= 1.0
    assert (last.done, last.total, last.inside) == (1, 1, 0.0)


def test_work_without_a_known_end_counts_its_passes(terminal: Terminal) -> None:
    read = terminal(80)
    with console.Reporter(name="a").counting("attacking again"):
        pulse.beat(64)
        pulse.beat(64)
    said = read()
    assert states(said) == ["attacking again  64 passes  0:00", "attacking again  128 passes  0:00", ""]
    pulse.beat(1)  # nobody watches
    assert not read()


def test_a_forked_worker_says_nothing_of_its_drivers_work() -> None:
    heard, said = os.pipe()
    with pulse.watched(lambda passes: os.write(said, b"x" * passes)):
        pulse.beat(2)
        child = os.fork()
        if child == 0:
            pulse.beat(3)
            os._exit(0)
        os.waitpid(child, 0)
        pulse.beat(1)
    pulse.beat(1)  # nobody watches
    os.close(said)
    assert os.read(heard, 100) == b"xxx"
    os.close(heard)


def test_the_first_line_comes_before_anything_large_is_loaded() -> None:
    script = """
import sys
class Never:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "numpy", "scipy", "rich"):
            raise ImportError(name)
sys.meta_path.insert(0, Never())
from hauberk.cli import main
sys.argv = ["hauberk", "attack", "runs/a", "--threat", "linf:8/255", "--images", "60"]
main()
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert found.stderr.splitlines()[0] == "attacking runs/a, in linf:8/255, on 60 images"


def test_a_verb_that_takes_time_says_what_it_does_unless_json_is_asked_for() -> None:
    assert opening("mix", {"accurate": "a", "robust": "b"}) == "mixing a with b"
    assert opening("report", {"runs": [Path("a"), Path("b")], "out": Path("c.html")}) == (
        "writing a page about a, b, into c.html"
    )
    assert not opening("list", {"family": "attacks"})
    assert not any(opening(verb, {"json": True}) for verb in DEEDS)
