"""Options that several verbs share, and how their text becomes objects."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from hauberk import reading, registry, trust
from hauberk.errors import HauberkError
from hauberk.recipes import Evaluation

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where the result goes.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Images = Annotated[int | None, typer.Option(help="The first this many images of the split; all by default.")]
Split = Annotated[str, typer.Option(help="test for results, val for calibration.")]
Seed = Annotated[int, typer.Option(help="With each sample's id, the source of all randomness.")]
Tile = Annotated[int, typer.Option(help="Rows of every model call.")]
Shard = Annotated[str, typer.Option(help="i/n: do every n-th unit, from the i-th (counted from 0).")]
Data = Annotated[str | None, typer.Option(help="The data set, for a model given as module:factory.")]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run the code outside Hauberk that the run or recipe names.")
]
Threads = Annotated[int | None, typer.Option(help="Torch threads; all cores by default.")]


_SOURCE = re.compile(r"(?<![\w./-])[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def trust_code(everything: bool, *typed: str | None) -> None:
    """Until the command ends, let that code run which the user named in it: each ``module:factory`` that was typed.

    Args:
        everything: whatever a run or recipe names, by ``--trust-code``.
        typed: arguments of this command.
    """
    sources = {source for text in typed if text for source in _SOURCE.findall(text)}
    if everything or sources:
        sys.path.append(os.path.realpath("."))  # after everything installed: the user named a module that may be here
        trust.trust(*sources, everything=everything)


def shard(text: str) -> tuple[int, int]:
    """``1/4`` as (1, 4)."""
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError as error:
        raise HauberkError(f"--shard expects i/n, got {text!r}", "for example --shard 0/2") from error
    if not 0 <= index < count:
        raise HauberkError(f"--shard {text}: i must be in 0..n-1", "for example --shard 0/2 and --shard 1/2")
    return index, count


def method(text: str, kind: registry.Kind, **extra: Any) -> Any:
    """Build ``apgd,steps=50`` with further settings, such as the threat."""
    return registry.build(described(text) | extra, kind)


def described(text: str) -> dict[str, Any]:
    """The description that ``apgd,steps=50`` stands for."""
    name, *settings = text.split(",")
    spec: dict[str, Any] = {"name": name.strip()}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise HauberkError(f"expected name,key=value, got {text!r}", "for example apgd,steps=50")
        spec[key.strip()] = reading.yaml_value(value, text)
    if spec.get("loss") in {e.name for e in registry.entries("loss")}:
        spec["loss"] = {"name": spec["loss"]}
    return spec


def threads(count: int | None) -> None:
    """Set torch's threads."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


def plan(split: str, images: int | None, seed: int, tile: int) -> Evaluation:
    """What of the data an evaluation takes, and how."""
    try:
        return Evaluation(split=split, images=images, seed=seed, tile=tile)
    except ValidationError as error:
        problem = error.errors()[0]
        raise HauberkError(f"--{problem['loc'][0]}: {problem['msg']}", "see: hauberk attack --help") from error
