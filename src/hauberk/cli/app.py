"""The command-line application with all verbs."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

import hauberk
from hauberk.cli.command import Verb

# name: module and function
VERBS = {
    "demo": ("demo", "demo"),
    "train": ("train", "train"),
    "attack": ("attack", "attack"),
    "certify": ("certify", "certify"),
    "lipschitz": ("lipschitz", "lipschitz"),
    "evaluate": ("evaluate", "evaluate"),
    "check": ("check", "check"),
    "compare": ("compare", "compare"),
    "gate": ("gate", "gate"),
    "mix": ("mix", "mix"),
    "report": ("report", "report"),
    "bundle": ("bundle", "bundle"),
    "export": ("export", "export"),
    "generate": ("generate", "generate"),
    "sweep": ("sweep", "sweep"),
    "verify": ("verify", "verify"),
    "list": ("listing", "listing"),
    "explain": ("explain", "explain"),
}


def build(names: Iterable[str] = VERBS) -> typer.Typer:
    """Build the command line with the named verbs; each verb's file is imported here, which is slow for all verbs."""
    app = typer.Typer(
        help="Train, attack, certify, mix and report image classifiers that must hold up against an adversary.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.callback()(_root)
    for name in names:
        module, function = VERBS[name]
        app.command(name, cls=Verb)(getattr(importlib.import_module(f"hauberk.cli.{module}"), function))
    return app


def asked(arguments: Sequence[str]) -> Iterable[str]:
    """The typed verb alone; all verbs if none is typed or if the typed verb does not exist."""
    return arguments[:1] if arguments and arguments[0] in VERBS else VERBS


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hauberk {hauberk.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the verb."""
