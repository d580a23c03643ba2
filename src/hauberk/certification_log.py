"""Certification logs as the field writes them: a line for each image, ``idx label predict radius correct time``.

A log has the conclusions and no votes, so that nothing in it can be derived again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hauberk import reading
from hauberk.errors import HauberkError

Row = dict[str, str]

COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
NEEDED = COLUMNS[:4]
DIGITS = 3  # significant ones of a written radius
LARGEST = 2**63 - 1
CLOCK = re.compile(r"(?:(\d+) days?, )?(\d+):(\d+):(\d+(?:\.\d+)?)")
REMEDY = "a log has the columns idx, label, predict, radius, correct and time, separated by tabs"


@dataclass(frozen=True)
class CertificationLog:
    """What a log says of each image, in the order of its lines; every array has shape (N,).

    Args:
        ids: numbers of the images.
        labels: their classes.
        predictions: the certified classes, -1 where the certificate abstained.
        radii: certified radii, in the norm of the noise; 0 where it abstained.
        places: the value of one step in the last printed place of each radius.
        seconds: what each image took; NaN where the log does not say.
        notes: what was left out or was not taken as it stands, in sentences.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    radii: NDArray[np.float64]
    places: NDArray[np.float64]
    seconds: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def read_log(path: Path) -> CertificationLog:
    """Read a log, whoever wrote it.

    Other columns are ignored, and so is ``correct``, which some code writes as a running total: an image is right where
    ``label`` equals ``predict``.  A last line that was cut short is left out.

    Raises:
        HauberkError: naming the line that is wrong.
    """
    lines = reading.text(path).removeprefix("\ufeff").split("\n")
    notes: list[str] = []
    rows = list(_rows(path, lines, notes))
    if not rows:
        raise HauberkError(f"{path} is a log without any image", REMEDY)
    numbers = {name: [_whole(path, at, row, name) for at, row in rows] for name in NEEDED[:3]}
    radii = [_radius(path, at, row) for at, row in rows]
    notes += _correct(path, rows, [a == b for a, b in zip(numbers["label"], numbers["predict"], strict=True)])
    kept = _once(path, rows, [*zip(*numbers.values(), radii, strict=True)], notes)
    columns = {name: np.array(values, dtype=np.int64)[kept] for name, values in numbers.items()}
    return CertificationLog(
        columns["idx"], columns["label"], columns["predict"], np.array(radii, dtype=np.float64)[kept],
        _places([rows[k][1]["radius"] for k in kept]), np.array([_seconds(path, *rows[k]) for k in kept]), tuple(notes),
    )  # fmt: skip


def written(ids: ArrayLike, labels: ArrayLike, predictions: ArrayLike, radii: ArrayLike) -> str:
    """The text of a log, with radii rounded down to three significant digits and times of zero.

    Args:
        ids: numbers of the images, shape (N,).
        labels: their classes.
        predictions: the certified classes, -1 where the certificate abstained.
        radii: certified radii, finite.
    """
    rows = zip(*(np.asarray(column).tolist() for column in (ids, labels, predictions, radii)), strict=True)
    lines = ("\t".join(map(str, (i, y, c, _printed(r), int(c == y), "0:00:00"))) for i, y, c, r in rows)
    return "\n".join(["\t".join(COLUMNS), *lines, ""])


def _printed(radius: float) -> str:
    exact = Decimal(radius)
    step = Decimal(1).scaleb(exact.adjusted() - DIGITS + 1)
    return f"{float(exact.quantize(step, ROUND_DOWN)):.{DIGITS}}" if radius else "0.0"


# --- lines --------------------------------------------------------------------------------------------------------


def _rows(path: Path, lines: Sequence[str], notes: list[str]) -> Iterator[tuple[int, Row]]:
    """The lines that say something, with their numbers; what is left out is noted."""
    names: tuple[str, ...] = ()
    filled = [at for at, line in enumerate(lines, 1) if line.strip()]
    for at in filled:
        values = _values(lines[at - 1], len(names))
        if at == len(lines):
            values = _unended(names, values)
        if not names:
            names = _header(path, at, values)
        elif tuple(v.lower() for v in values) == names:
            notes.append(f"line {at} repeats the header")
        elif at == filled[-1] and len(values) < len(names):
            notes.append(f"line {at}, the last one, is cut short and left out")
        elif len(values) != len(names):
            raise HauberkError(
                f"{path}, line {at}: expected {len(names)} columns, got {len(values)}", "restore the line, or remove it"
            )
        else:
            yield at, dict(zip(names, values, strict=True))


def _values(line: str, count: int) -> list[str]:
    values = [value.strip() for value in (line.split("\t") if "\t" in line else line.split())]
    while count and len(values) > count and not values[-1]:
        values.pop()
    return values


def _header(path: Path, at: int, values: Sequence[str]) -> tuple[str, ...]:
    names = tuple(value.lower() for value in values)
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise HauberkError(f"{path}, line {at}: expected a header with a column {missing[0]!r}", REMEDY)
    if len(set(names)) < len(names):
        raise HauberkError(f"{path}, line {at}: the header names a column twice", REMEDY)
    return names


def _unended(names: Sequence[str], values: list[str]) -> list[str]:
    """What counts of a line that the file ends in: its last value may have lost its last digits."""
    if len(values) < len(names) or names[-1:] == ("correct",):
        return values
    return [*values[:-1], ""] if names[-1:] == ("time",) else values[:-1]


def _whole(path: Path, at: int, row: Row, name: str) -> int:
    least = -1 if name == "predict" else 0
    try:
        value = int(row[name])
    except ValueError:
        value = least - 1
    if not least <= value <= LARGEST:
        told = "a class, or -1 where the certificate abstained" if least else "a whole number, not negative"
        raise HauberkError(
            f"{path}, line {at}: expected {told} in the column {name}, got {row[name]!r}", "restore the line"
        )
    return value


def _radius(path: Path, at: int, row: Row) -> float:
    try:
        value = float(Decimal(row["radius"]))
    except (ArithmeticError, ValueError):
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise HauberkError(f"{path}, line {at}: expected a radius, got {row['radius']!r}", "restore the line")
    if value and int(row["predict"]) < 0:
        raise HauberkError(
            f"{path}, line {at}: the certificate abstained, but its radius is {value} and not 0", "restore it"
        )
    return value


def _seconds(path: Path, at: int, row: Row) -> float:
    """``0:00:13.7``, ``1 day, 2:00:00`` or seconds; NaN where nothing is told."""
    told = row.get("time", "")
    clock = CLOCK.fullmatch(told)
    if clock:
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return 86400 * days + 3600 * hours + 60 * minutes + seconds
    try:
        return float(told) if told else math.nan
    except ValueError:
        raise HauberkError(
            f"{path}, line {at}: expected a time such as 0:00:13.7 or seconds, got {told!r}", "restore the line"
        ) from None


# --- lines together -----------------------------------------------------------------------------------------------


def _correct(path: Path, rows: Sequence[tuple[int, Row]], right: Sequence[bool]) -> list[str]:
    """What is to be said of the column ``correct``: nothing, or that it is a running total."""
    told = [row["correct"] for _, row in rows if "correct" in row]
    totals = np.cumsum(right).tolist()
    if not told or told == [str(int(c)) for c in right]:
        return []
    if told == [str(total) for total in totals]:
        return ["the column correct is a running total: an image is taken as right where label equals predict"]
    at = next(at for (at, row), c in zip(rows, right, strict=True) if row["correct"] != str(int(c)))
    raise HauberkError(
        f"{path}, line {at}: the column correct fits neither label and predict nor a running total of them",
        "restore the column, or remove it: it is not needed",
    )


def _once(
    path: Path, rows: Sequence[tuple[int, Row]], told: Sequence[tuple[object, ...]], notes: list[str]
) -> list[int]:
    """The places of the rows, each image once."""
    first: dict[object, int] = {}
    for k, (image, *_) in enumerate(told):
        known = first.setdefault(image, k)
        if told[known] != told[k]:
            raise HauberkError(
                f"{path}, line {rows[k][0]}: image {image} is also in line {rows[known][0]}, with other values",
                "keep the lines of one certification only: choosing between two results makes the certificate invalid",
            )
    if len(first) < len(rows):
        notes.append(f"{len(rows) - len(first)} lines repeat an image word for word and are left out")
    return list(first.values())


def _places(printed: Sequence[str]) -> NDArray[np.float64]:
    """The value of the last place of each printed radius.

    A log has a number of significant digits or of decimals, and neither is known: trailing zeros may be left out.  The
    larger of both steps is taken.
    """
    numbers = [Decimal(text) for text in printed]
    digits = max(len(x.as_tuple().digits) for x in numbers)
    decimals = max(-int(x.as_tuple().exponent) for x in numbers)
    return np.array([10.0 ** max(x.adjusted() - digits + 1, -decimals) for x in numbers])
