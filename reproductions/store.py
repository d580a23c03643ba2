"""What the scripts here share: verdicts image by image in one resumable JSON file, and how numbers are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from hauberk.evaluation.metrics import Bools, accuracy
from hauberk.report import markdown, words
from hauberk.runs import environment
from hauberk.statistics import Interval, paired_difference, student
from hauberk.storage import atomic_write

FIRST = ("what", "images", "setting", "models", "environment", "labels", "summary")


class Store:
    """One result: what was run, the outcomes of every image in every cell, and the summary computed from them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        for part in ("models", "cells"):
            self.data.setdefault(part, {})

    def describe(self, **facts: Any) -> None:
        """Put down what is run before it is; the cells of another setting are dropped."""
        facts = json.loads(json.dumps(facts))
        if self.data.get("setting", facts["setting"]) != facts["setting"]:
            self.data |= {"models": {}, "cells": {}}
        self.data |= facts | {"environment": environment()}

    def model(self, name: str, **facts: Any) -> None:
        """Enter a model; the cells of another one of that name are dropped."""
        facts = json.loads(json.dumps(facts))
        if self.data["models"].setdefault(name, facts) != facts:
            self.data["cells"] = {k: v for k, v in self.data["cells"].items() if k.split(" / ")[0] != name}
            self.data["models"][name] = facts

    def cell(self, key: str, compute: Callable[[], Any]) -> Any:
        """A cell's values: those on file, or computed now and written."""
        cells = self.data["cells"]
        if key not in cells:
            cells[key] = compute()
            self.write()
            print(f"{self.path.stem}: {key}", flush=True)
        return cells[key]

    def write(self) -> None:
        """The JSON file, a line a cell."""
        order = [k for k in (*FIRST, *sorted(set(self.data) - {*FIRST, "cells"})) if k in self.data]
        lines = [f"{json.dumps(k)}: {_compact(self.data[k])}" for k in order]
        cells = ",\n".join(f" {json.dumps(k)}: {_compact(v)}" for k, v in self.data["cells"].items())
        self.put(".json", "{\n" + ",\n".join([*lines, f'"cells": {{\n{cells}\n}}']) + "\n}\n")

    def put(self, suffix: str, text: str) -> None:
        """Write a file of this result, whole or not at all."""
        atomic_write(self.path.with_suffix(suffix), text.encode())


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


# --- verdicts -----------------------------------------------------------------------------------------------------


def bits(values: Tensor | Bools) -> str:
    """Booleans as a string of 0 and 1."""
    return "".join("1" if v else "0" for v in values.tolist())


def unbits(text: str) -> Bools:
    """The booleans of a string of 0 and 1."""
    return np.array([c == "1" for c in text], dtype=np.bool_)


def share(verdicts: str | Bools) -> Interval:
    """Accuracy with Wilson's interval."""
    return accuracy(unbits(verdicts) if isinstance(verdicts, str) else verdicts)


def less(one: ArrayLike, other: ArrayLike) -> Interval:
    """A difference of two means, paired over images."""
    a, b = np.asarray(one), np.asarray(other)
    return (paired_difference(a, b) if a.dtype == b.dtype == np.bool_ else student(a - b))[0]


# --- numbers ------------------------------------------------------------------------------------------------------


def plain(interval: Interval, digits: int = 4) -> list[float]:
    """Value and ends, for JSON."""
    return [round(v, digits) for v in (interval.value, interval.low, interval.high)]


def percent(values: Interval | Sequence[float]) -> str:
    """A share and its interval in percent."""
    return words.share(_interval(values))


def points(values: Interval | Sequence[float]) -> str:
    """A difference and its interval in points."""
    return words.points(_interval(values))


def _interval(values: Interval | Sequence[float]) -> Interval:
    if isinstance(values, Interval):
        return values
    value, low, high = values
    return Interval(value, low, high, 0)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return markdown.table(head, rows).splitlines()
