"""The verbs, gathered."""

from __future__ import annotations

from typing import Annotated

import typer

import hauberk
from hauberk.cli import (
    attack,
    bundle,
    certify,
    check,
    demo,
    explain,
    lipschitz,
    listing,
    mix,
    report,
    sweep,
    train,
    verify,
)

app = typer.Typer(
    help="Train, attack, certify, mix and report image classifiers that must hold up against an adversary.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hauberk {hauberk.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the verb."""


app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("attack")(attack.attack)
app.command("certify")(certify.certify)
app.command("lipschitz")(lipschitz.lipschitz)
app.command("check")(check.check)
app.command("mix")(mix.mix)
app.command("report")(report.report)
app.command("bundle")(bundle.bundle)
app.command("sweep")(sweep.sweep)
app.command("verify")(verify.verify)
app.command("list")(listing.listing)
app.command("explain")(explain.explain)
