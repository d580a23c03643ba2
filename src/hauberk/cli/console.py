"""Output for people: lines on stdout and stderr, tables, errors, and the progress of work."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from hauberk import pulse
from hauberk.cli.bar import fitted
from hauberk.cli.lastline import LAST, obeys, width

if TYPE_CHECKING:
    from hauberk.evaluation.work import Step
    from hauberk.training.progress import Progress

PLAIN_SECONDS, PLAIN_SHARE = 10.0, 0.05  # between two plain lines: the longer of both, the share of the time so far
FIRST_SECONDS = 1.0  # until the first plain line, which gives the time left
DRAWN_SECONDS = 0.1  # between two states of a bar
RED, YELLOW = "1;31", "33"


def clean(text: str) -> str:
    """Text with control characters, and marks that change the direction of writing, written out as escapes.

    A line stays one line, so a name in a file cannot add a line.
    """
    shown = (c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else ascii(c)[1:-1] for c in text)
    return "".join(" " if c in ("\\n", "\\t") else c for c in shown)


def line(text: str, stream: TextIO | None = None, mark: str = "", colour: str = RED) -> None:
    """One line, on stderr unless another stream is given.

    Args:
        text: the text of the line; it is cleaned here.
        stream: where the line is written.
        mark: a word before the text, coloured on a terminal.
        colour: the terminal's code for the colour of the mark.
    """
    LAST.clear()
    stream = stream or sys.stderr
    if mark and obeys():
        mark = f"\x1b[{colour}m{mark}\x1b[0m"
    stream.write(f"{mark} {clean(text)}\n" if mark else f"{clean(text)}\n")
    stream.flush()


def error_line(message: str, hint: str = "") -> None:
    """Write an error and the next step to stderr."""
    line(message, mark="error:")
    if hint:
        line(f"  {hint}")


def say(text: str) -> None:
    """Write a line for a person to stderr, so that stdout holds only the result."""
    line(text)


def notes(known: Iterable[str]) -> None:
    """Write the notes about a model and its data, one line each."""
    for note in known:
        line(note, mark="note:", colour=YELLOW)


def emit(result: dict[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """Write the result of a verb: one JSON object, or lines for a person."""
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for text in lines:
        line(text, sys.stdout)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table to stdout."""
    from rich.console import Console  # here, because it takes a tenth of a second, and other verbs do not need it
    from rich.markup import escape
    from rich.table import Table

    LAST.clear()
    grid = Table(title=escape(clean(title)), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(escape(clean(column)), overflow="fold")  # a name is shown whole
    for row in rows:
        grid.add_row(*(escape(clean(cell)) for cell in row))
    plain = os.environ.get("NO_COLOR")
    Console(highlight=False, emoji=False, color_system=None if plain else "auto").print(grid)


def clock(seconds: float) -> str:
    """Seconds as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Reporter:
    """Progress of training and of evaluation: a bar on a terminal, and elsewhere a line from time to time.

    Args:
        quiet: write nothing.
        first: a line before all others, written when there is something to report.
        name: the name of the run, which distinguishes the lines of several processes.
    """

    def __init__(self, quiet: bool = False, first: str = "", name: str = "") -> None:
        self._quiet, self._first = quiet, first
        self.name, self.foretold = name, False  # whether the verb has announced the longest time itself
        self._started = self._last = time.monotonic()
        self._told = False

    def training(self, progress: Progress) -> None:
        """Callback of ``train``."""
        done = progress.step >= progress.steps
        terms = [f"{name} {value:.3f}" for name, value in progress.terms.items()]
        self._show(
            f"epoch {progress.epoch + 1}/{progress.epochs}", progress.step / max(1, progress.steps),
            [f"left {clock(progress.eta)}", *terms[:1], f"{progress.images_per_second:.0f} images/s", *terms[1:]], done,
        )  # fmt: skip

    def evaluating(self, step: Step) -> None:
        """Callback of ``attack``, ``certify`` and ``mix``."""
        if step.news:  # also with JSON, because it goes to stderr
            say(step.news)
            return
        if step.ahead:
            self._begin()
            if math.isfinite(step.seconds) and not (self._quiet or self.foretold):
                say(f"at most {clock(step.seconds)}: {step.label}")
            return
        done = step.done == step.total
        share = (step.done + step.inside) / max(1, step.total)
        left = f"left {clock(step.seconds / share * (1.0 - share))}" if share > 0.0 else ""
        details = [f"{step.done}/{step.total}", f"in {clock(step.seconds)}" if done else left]
        self._show(step.label, share, [d for d in details if d], done)

    def _pause(self, now: float) -> float:
        """Seconds until the next plain line."""
        if not self._told:
            return min(FIRST_SECONDS, PLAIN_SECONDS)
        return max(PLAIN_SECONDS, PLAIN_SHARE * (now - self._started))

    @contextmanager
    def counting(self, label: str) -> Iterator[None]:
        """Within the block, show how many passes are done, for work of unknown length."""
        started, done = time.monotonic(), 0

        def beat(passes: int) -> None:
            nonlocal done
            done += passes
            self._show(label, None, [f"{done} passes", clock(time.monotonic() - started)], finished=False)

        try:
            with pulse.watched(beat):
                yield
        finally:
            LAST.clear()
            LAST.leave()

    def _begin(self) -> None:
        if self._first and not self._quiet:
            say(self._first)
        self._first = ""

    def _show(self, label: str, share: float | None, details: Sequence[str], finished: bool) -> None:
        """Show a state of the work: its label, the share that is done (None if unknown), and details.

        The most important detail comes first.
        """
        if self._quiet:
            return
        self._begin()
        now, drawing = time.monotonic(), LAST.mine()
        if not finished and now - self._last < (DRAWN_SECONDS if drawing else self._pause(now)):
            return
        self._last, self._told = now, True
        named = f"{self.name}  {label}" if self.name else label
        if not drawing:
            line("  ".join([named, *([] if share is None else [f"{100 * share:3.0f}%"]), *details]))
            return
        LAST.draw(fitted(clean(label), share, [clean(d) for d in details], width()))
        if finished:
            LAST.keep()
