"""``hauberk explain NAME``."""

from __future__ import annotations

import inspect
import os
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk import registry
from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk.cli import formulas
else:
    formulas = Later("hauberk.cli.formulas")


def explain(
    name: Annotated[str, typer.Argument(help="The name of a method, as in `hauberk list`.")],
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the method's page of the site in the browser.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what a method does, its equation, its settings and its source."""
    found = registry.entry(name)
    target = found.load()
    settings = [
        f"  {p.name} = {p.default!r}" if p.default is not inspect.Parameter.empty else f"  {p.name} (required)"
        for p in inspect.signature(target).parameters.values()
    ]
    text = formulas.readable(inspect.getdoc(target) or "")
    title = f"{name} ({found.kind})  {found.reference}".rstrip()
    if open_page:
        webbrowser.open(page(name))
    emit(
        {"name": name, "kind": found.kind, "reference": found.reference, "path": found.path, "text": text},
        json,
        [title, "", *text.splitlines(), "", "settings:", *settings, "", found.path],
    )


def page(name: str) -> str:
    """The address of a method's page: below ``HAUBERK_SITE``, or in the checkout that holds this package.

    Raises:
        HauberkError: if ``HAUBERK_SITE`` is not set and the checkout has no such page.
    """
    path = f"reference/methods/{name}.html"
    hosted = os.environ.get("HAUBERK_SITE")
    if hosted:
        return f"{hosted.rstrip('/')}/{path}"
    built = Path(__file__).resolve().parents[3] / "docs" / "_build" / "html" / path
    if not built.exists():
        raise HauberkError(
            f"there is no page about {name} on this machine",
            "build it in a checkout with: make docs; or set HAUBERK_SITE to the address of a built site",
        )
    return built.as_uri()
