"""A model of the user's own, made by a function of an importable module."""

from __future__ import annotations

import importlib

from torch import nn

from hauberk.errors import HauberkError


def own(source: str) -> nn.Module:
    """Call ``module:factory`` and take the model it returns.

    Its spec says how to make it again, so that a mix of it can be saved; weights are kept apart, as for every model.

    Args:
        source: an importable module and the name of a function without arguments in it.

    Raises:
        HauberkError: if there is no such function, or it returns no module.
    """
    module, _, factory = source.partition(":")
    try:
        made = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError, ValueError) as error:
        raise HauberkError(f"cannot import {source}: {error}", "run from the folder that holds it") from error
    if not isinstance(made, nn.Module):
        raise HauberkError(
            f"{source} returned {type(made).__name__}", "it should return a torch.nn.Module that gives logits"
        )
    if not isinstance(getattr(made, "spec", None), dict):
        made.spec = {"name": "own", "source": source}  # type: ignore[assignment]
    return made
