"""``hauberk list attacks``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Annotated

import typer

from hauberk import reading, registry
from hauberk.catalogue import lecture
from hauberk.cli import options
from hauberk.cli.console import emit, table
from hauberk.errors import HauberkError

FAMILIES = (
    "attacks, certificates, objectives, defences, models, layers, metrics, bounds, losses, threats, noises, datasets, "
    "executors, recipes, or lecture: the items of the lecture with method, page, test and erratum."
)


def listing(
    family: Annotated[
        str,
        typer.Argument(help=FAMILIES),
    ],
    json: options.Json = False,
) -> None:
    """List the methods of a family, the recipes, or the items of the lecture."""
    rows = _rows(family)
    if json:
        emit({family: rows}, True, [])
        return
    if family == "lecture":
        emit({}, False, [f"{len(rows)} items of the lecture", *_slides(rows)])
    else:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table(f"{len(rows)} {family}", columns, [[row.get(c, "") for c in columns] for row in rows])
    if rows:
        verb = "train" if family.rstrip("s") == "recipe" else "explain"
        first = rows[0].get("name") or lecture.ITEMS[0].methods[0]
        emit({}, False, [f"next: hauberk {verb} {shlex.quote(first)}"])


def _rows(family: str) -> list[dict[str, str]]:
    if family == "lecture":
        return [item.row() for item in lecture.ITEMS]
    return _recipes() if family.rstrip("s") == "recipe" else _methods(family)


def _slides(rows: list[dict[str, str]]) -> Iterator[str]:
    """The items below the titles of their slides, because six columns would be too narrow to read."""
    for title, items in groupby(rows, key=itemgetter("slide")):
        yield from ("", title)
        for row in items:
            yield f"  {row['item']}: {row['method']}"
            yield f"      {row['page']}, {row['test']}"
            if row["erratum"]:
                yield f"      erratum: {row['erratum']}"


def _recipes() -> list[dict[str, str]]:
    from hauberk import recipes  # here, because the list of methods does not need torch

    loaded = [reading.yaml_file(path) for path in recipes.available()]
    return [{"name": r["name"], "summary": r.get("summary", "")} for r in loaded]


def _methods(family: str) -> list[dict[str, str]]:
    families = {f"{kind}es" if kind.endswith("s") else f"{kind}s": kind for kind in registry.kinds()}
    kind = families.get(family) or next((kind for kind in registry.kinds() if kind == family), None)
    if kind is None:
        known = [*families, "recipes", "lecture"]
        raise HauberkError(
            f"there is no family {family!r}", registry.suggestion(family, known) or f"known: {', '.join(known)}"
        )
    found = registry.entries(kind)
    return [{"name": e.name, "summary": e.summary, "reference": e.reference, **e.facts} for e in found]
