"""``hauberk explain NAME``."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk import registry
from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk.cli import formulas
else:
    formulas = Later("hauberk.cli.formulas")


def explain(
    name: Annotated[str, typer.Argument(help="The name of a method, as in `hauberk list`.")], json: options.Json = False
) -> None:
    """What a method does, its equation, its settings and its source."""
    found = registry.entry(name)
    target = found.load()
    settings = [
        f"  {p.name} = {p.default!r}" if p.default is not inspect.Parameter.empty else f"  {p.name} (required)"
        for p in inspect.signature(target).parameters.values()
    ]
    text = formulas.readable(inspect.getdoc(target) or "")
    title = f"{name} ({found.kind})  {found.reference}".rstrip()
    emit(
        {"name": name, "kind": found.kind, "reference": found.reference, "path": found.path, "text": text},
        json,
        [title, "", *text.splitlines(), "", "settings:", *settings, "", found.path],
    )
