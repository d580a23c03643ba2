"""What a person sees: progress bars on a terminal, plain lines elsewhere, tables, and errors on stderr."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape as _escape
from rich.table import Table

if TYPE_CHECKING:
    from hauberk.evaluation.work import Step
    from hauberk.training.progress import Progress

OUT = Console(highlight=False, emoji=False)  # my_nets:brain: is a name and no picture
ERR = Console(stderr=True, highlight=False, emoji=False)
PLAIN_SECONDS = 10.0


def clean(text: str) -> str:
    """Text without what a terminal obeys: controls, and marks that turn the direction of writing, are written out.

    A line stays one line, so a name in a file cannot write a line of its own.
    """
    shown = (c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else ascii(c)[1:-1] for c in text)
    return "".join(" " if c in ("\\n", "\\t") else c for c in shown)


def escape(text: str) -> str:
    """Text as rich prints it, and as a terminal may see it."""
    return _escape(clean(text))


def error_line(message: str, hint: str = "") -> None:
    """An error and the next thing to do, on stderr."""
    ERR.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if hint:
        ERR.print(f"  {escape(hint)}", soft_wrap=True)


def say(text: str) -> None:
    """A line for a person, on stderr so that stdout stays a result."""
    ERR.print(escape(text), soft_wrap=True)


def notes(known: Iterable[str]) -> None:
    """What there is to know about a model and its data, a line each."""
    for note in known:
        say(f"note: {note}")


def emit(result: dict[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """The result of a verb: one JSON object, or lines for a person."""
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for line in lines:
        OUT.print(escape(line), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout."""
    grid = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(escape(column))
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    OUT.print(grid)


def clock(seconds: float) -> str:
    """Seconds as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Reporter:
    """Progress of training and of evaluation, as one rewritten line on a terminal and a line now and then elsewhere.

    Args:
        quiet: say nothing.
        first: the line before all others, said when there is something to report.
    """

    def __init__(self, quiet: bool = False, first: str = "") -> None:
        self._quiet, self._first = quiet, first
        self._live = ERR.is_terminal
        self._last = 0.0
        self._label = ""

    def training(self, progress: Progress) -> None:
        """Callback of ``train``."""
        share = progress.step / max(1, progress.steps)
        terms = "  ".join(f"{name} {value:.3f}" for name, value in progress.terms.items())
        self._line(
            f"epoch {progress.epoch + 1}/{progress.epochs}  {100 * share:3.0f}%  {terms}  "
            f"{progress.images_per_second:.0f} images/s  left {clock(progress.eta)}",
            finished=progress.step >= progress.steps,
        )

    def evaluating(self, step: Step) -> None:
        """Callback of ``attack``, ``certify`` and ``mix``."""
        if step.news:  # also beside JSON: it stands on stderr
            say(step.news)
            return
        left = step.seconds / step.done * (step.total - step.done)
        self._line(f"{step.label}  {step.done}/{step.total}  left {clock(left)}", finished=step.done == step.total)

    def _line(self, text: str, finished: bool) -> None:
        if self._quiet:
            return
        if self._first:
            say(self._first)
            self._first = ""
        if self._live:
            ERR.print(f"\r\x1b[2K{escape(text)}", end="\n" if finished else "", soft_wrap=True)
        elif finished or time.monotonic() - self._last > PLAIN_SECONDS:
            self._last = time.monotonic()
            ERR.print(escape(text), soft_wrap=True)
