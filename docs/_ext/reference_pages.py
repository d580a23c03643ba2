"""Pages that follow from the code: one for each method, each public package and each verb of the command line.

They are written into ``docs/reference`` when a build begins.  The catalogue, the docstrings and the command line hold
the facts.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from sphinx.application import Sphinx

import hauberk
from hauberk import recipes, registry
from hauberk.catalogue import Entry, lecture
from hauberk.catalogue.entry import TITLES
from hauberk.cli.app import VERBS, build

PACKAGES = (
    "attacks", "certificates", "layers", "objectives", "defences", "noises", "models", "data", "threats", "batch",
    "classifier", "draws", "boundary", "evaluation.metrics", "evaluation.cost", "statistics", "confidence",
    "randomness", "registry", "recipes", "runs", "records", "subjects", "comparison", "report", "verify", "audit",
    "conformance", "executors", "certification_log", "plots", "errors",
)  # fmt: skip


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of every page."""
    yield "lecture.md", _lecture()
    yield "methods/index.md", _methods_index()
    for kind in registry.kinds():
        found = registry.entries(kind)
        yield f"methods/{kind}.md", _family(kind, found)
        for entry in found:
            yield f"methods/{entry.name}.md", _method(entry)
    yield "api/index.md", _toctree("Python API", ["hauberk", *PACKAGES], "Everything that is public in the library.")
    yield "api/hauberk.md", _verbs()
    for package in PACKAGES:
        yield f"api/{package}.md", _package(package)
    yield "cli/index.md", _toctree("Command line", list(VERBS), "One page for each verb of `hauberk`.")
    group: Any = typer.main.get_command(build())
    for name, command in group.commands.items():
        yield f"cli/{name}.md", _verb(name, command)


def _toctree(title: str, names: list[str], said: str) -> str:
    return "\n".join([f"# {title}", "", said, "", "```{toctree}", ":maxdepth: 1", "", *names, "```", ""])


def _lecture() -> str:
    """Every item of the lecture with the methods and the page that treat it."""
    lines = ["# The lecture, item by item", "", "`hauberk list lecture` prints this table with the tests.", ""]
    for title, items in itertools.groupby(lecture.ITEMS, key=lambda item: item.slide):
        lines += [f"## {title}", "", "| Item | Methods | Page | Erratum |", "| --- | --- | --- | --- |"]
        for item in items:
            methods = ", ".join(f"[`{name}`](methods/{name}.md)" for name in item.methods)
            lines.append(f"| {_cell(item.name)} | {methods} | {_companion(item.page, '..')} | {_cell(item.erratum)} |")
        lines.append("")
    return "\n".join(lines)


def _companion(path: str, up: str) -> str:
    """A link to a page of the lecture, by its file."""
    page = Path(path).stem
    return f"{{doc}}`{page[5:]} <{up}/lecture/{page}>`"


def _methods_index() -> str:
    rows = [f"| [{title}]({kind}.md) | {len(registry.entries(kind))} |" for kind, title in TITLES.items()]
    table = ["| Family | Methods |", "| --- | --- |", *rows]
    said = "Each method has a page of its own with its equation, its settings and its source."
    return "\n".join(["# How each method works", "", said, "", *table, "", *_hidden(list(TITLES))])


def _family(kind: str, entries: list[Entry]) -> str:
    rows = [f"| [`{e.name}`]({e.name}.md) | {_cell(e.summary)} | {_cell(e.reference)} |" for e in entries]
    head = [f"# {TITLES[kind]}", "", "| Name | What it does | Source |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows, ""])


def _hidden(names: list[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", "", *names, "```", ""]


def _method(entry: Entry) -> str:
    facts = [
        ("Family", f"[{TITLES[entry.kind]}]({entry.kind}.md)"),
        ("Source", _cell(entry.reference) or "this project"),
    ]
    facts += [(name.replace("_", " ").capitalize(), _cell(value)) for name, value in entry.facts.items()]
    used = [f"`{name}`" for name in _recipes_with(entry.name)[:8]]
    if used:
        facts.append(("Recipes", ", ".join(used)))
    slides = dict.fromkeys(item.page for item in lecture.ITEMS if entry.name in item.methods)
    if slides:
        facts.append(("In the lecture", ", ".join(_companion(page, "../..") for page in slides)))
    facts.append(("On the command line", f"`hauberk explain {entry.name}`"))
    table = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts)]
    # the sidebar of every page would hold every method: their families lead to them, and the search finds them
    return "\n".join(
        [
            "---",
            "orphan: true",
            "---",
            "",
            f"# {entry.name}",
            "",
            _sentence(entry.summary),
            "",
            *table,
            "",
            *_documented(entry.path.replace(":", "."), True),
        ]
    )


def _recipes_with(name: str) -> list[str]:
    """The recipes whose text names a method."""
    named = re.compile(rf"name: {re.escape(name)}\s*(?:[,}}]|$)", re.MULTILINE)
    return [stem for stem, text in _recipe_texts().items() if named.search(text)]


@functools.cache
def _recipe_texts() -> dict[str, str]:
    return {path.stem: path.read_text() for path in recipes.available()}


def _documented(path: str, index: bool) -> list[str]:
    """The docstring of an object, by its import path."""
    module, _, name = path.rpartition(".")
    target = getattr(importlib.import_module(module), name)
    directive = "autoclass" if inspect.isclass(target) else "autofunction" if callable(target) else "autodata"
    asked = [] if index else ["   :no-index:"]
    if directive == "autoclass":
        asked += ["   :members:"]
    return ["```{eval-rst}", f".. {directive}:: {path}", *asked, "```", ""]


def _package(package: str) -> str:
    module = importlib.import_module(f"hauberk.{package}")
    registered = {entry.path.partition(":")[2]: entry for entry in registry.entries()}
    text = inspect.getdoc(module) or ""
    first, _, rest = text.partition("\n")
    lines = [f"# hauberk.{package}", "", "```{eval-rst}", first, *rest.split("\n"), "```", ""]
    methods, others = [], []
    for name in _public(module):
        entry = registered.get(name)
        if entry is not None and entry.load() is getattr(module, name):
            methods.append(f"| [`{name}`](../methods/{entry.name}.md) | {_cell(entry.summary)} |")
        else:
            others += [f"## {name}", "", *_documented(f"hauberk.{package}.{name}", True)]
    if package == "objectives":
        methods = [
            f"| [`{e.path.partition(':')[2]}`](../methods/{e.name}.md) | {_cell(e.summary)} |"
            for e in registry.entries("objective")
        ]
    if methods:
        lines += ["Methods, each on a page of its own:", "", "| Name | What it does |", "| --- | --- |", *methods, ""]
    return "\n".join([*lines, *others])


def _public(module: Any) -> list[str]:
    """What a package exports, or what a module defines without an underscore."""
    named = getattr(module, "__all__", None)
    found = named if named is not None else [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__ and inspect.getdoc(value)
    ]  # fmt: skip
    return [name for name in found if callable(getattr(module, name))]


def _verbs() -> str:
    lines = ["# hauberk", "", "```{eval-rst}", *(inspect.getdoc(hauberk) or "").split("\n"), "```", ""]
    for name, path in hauberk._VERBS.items():
        lines += [f"## hauberk.{name}", "", *_documented(path.replace(":", "."), False)]
    return "\n".join(lines)


def _verb(name: str, command: Any) -> str:
    text = inspect.cleandoc(command.help or "").replace("\f", "")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join(["hauberk", name, *(f"{(p.metavar or p.name or '').upper()}" for p in arguments), "[OPTIONS]"])
    lines = [f"# hauberk {name}", "", text, "", "```bash", usage, "```", "", "| Option | What it says | Without it |",
             "| --- | --- | --- |"]  # fmt: skip
    for p in command.params:
        argument = p.param_type_name == "argument"
        shown = f"`{(p.metavar or p.name or '').upper()}`" if argument else ", ".join(f"`{o}`" for o in p.opts)
        plain = p.default in (None, (), [], False, "") or callable(p.default)
        default = "required" if p.required else "" if plain else f"`{p.default}`"
        lines.append(f"| {shown} | {_cell(getattr(p, 'help', '') or '')} | {_cell(default)} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """Text for one cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;").replace("*", "\\*")


def _sentence(text: str) -> str:
    said = _cell(text)
    return f"{said[:1].upper()}{said[1:]}" + ("" if said.endswith(".") else ".")


def write(app: Sphinx) -> None:
    """Write the pages that changed, and remove those that are no more."""
    root = Path(app.srcdir) / "reference"
    kept = set()
    for name, text in pages():
        path = root / name
        kept.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in [p for p in root.rglob("*") if p.is_file() and p not in kept]:
        path.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    """Before the pages are read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
