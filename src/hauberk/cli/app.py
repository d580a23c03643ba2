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
    compare,
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
from hauberk.cli.command import Verb

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


app.command("demo", cls=Verb)(demo.demo)
app.command("train", cls=Verb)(train.train)
app.command("attack", cls=Verb)(attack.attack)
app.command("certify", cls=Verb)(certify.certify)
app.command("lipschitz", cls=Verb)(lipschitz.lipschitz)
app.command("check", cls=Verb)(check.check)
app.command("compare", cls=Verb)(compare.compare)
app.command("mix", cls=Verb)(mix.mix)
app.command("report", cls=Verb)(report.report)
app.command("bundle", cls=Verb)(bundle.bundle)
app.command("sweep", cls=Verb)(sweep.sweep)
app.command("verify", cls=Verb)(verify.verify)
app.command("list", cls=Verb)(listing.listing)
app.command("explain", cls=Verb)(explain.explain)
