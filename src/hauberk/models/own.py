"""A model of the user's own, made by a function of an importable module."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from torch import nn

from hauberk.errors import HauberkError, first_line, own_line, reason
from hauberk.registry import suggestion

PREFIX = "module."  # of the weights that DataParallel saves


def own(source: str) -> nn.Module:
    """The model that ``module:factory`` returns, or is, in eval mode.

    Its spec describes how to build it, so that a mix of it can be saved; weights are saved separately, as for every
    model.

    Args:
        source: an importable module and the name of a function or class that needs no arguments, or of a model, in it.

    Raises:
        HauberkError: if there is no such name, its own code fails (the message names the line), or it is not a module.
    """
    module, _, factory = source.partition(":")
    made = _made(source, _found(source, module, factory))
    if not isinstance(made, nn.Module):
        raise HauberkError(
            f"{source} returned {_shown(made)}", "it should return one torch.nn.Module that gives logits"
        )
    if getattr(made, "_modules", None) is None:
        raise HauberkError(
            f"{source} returned a {type(made).__name__} that is not initialised: its __init__ did not call "
            "super().__init__()",
            "begin __init__ with: super().__init__()",
        )
    made.eval()  # its own eval may return anything
    if not isinstance(getattr(made, "spec", None), dict):
        made.spec = {"name": "own", "source": source}  # type: ignore[assignment]
    return made


def _found(source: str, module: str, factory: str) -> Any:
    """What the name stands for."""
    if not module.strip(".") or not factory:
        raise HauberkError(f"expected module:factory, got {source!r}", "for example my_models:build for my_models.py")
    if module.endswith(".py") or "/" in module:
        name = module.removesuffix(".py").strip("./").replace("/", ".")
        raise HauberkError(f"expected the name of a module, got the file {module}", f"write {name}:{factory}")
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        if own_line(error) or isinstance(error, SyntaxError):
            raise failing(source, error) from error
        raise HauberkError(f"cannot import {source}: {reason(error)}", "run from the folder that holds it") from error
    for name in factory.split("."):
        if not hasattr(found, name):
            raise HauberkError(f"cannot import {source}: {module} has no {factory!r}", _nearest(found, name))
        found = getattr(found, name)
    return found


def _nearest(module: Any, name: str) -> str:
    return suggestion(name, [n for n in vars(module) if not n.startswith("_")]) or "name a function in it"


def _made(source: str, factory: Any) -> Any:
    """What the factory returns; a model that is there already is taken as it is."""
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise HauberkError(
            f"{source} is {_shown(factory)}", "give the name of a model, or of a function that returns one"
        )
    needed = _needed(factory)
    if needed:
        name = source.partition(":")[2]
        raise HauberkError(
            f"{source} needs arguments: {', '.join(needed)}",
            f"write a function without arguments: def build(): return {name}({', '.join(f'{n}=...' for n in needed)})",
        )
    try:
        return factory()
    except HauberkError:
        raise
    except (Exception, SystemExit) as error:
        raise failing(source, error) from error


def _needed(factory: Any) -> list[str]:
    """The arguments without a default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of compiled functions nothing is known
        return []
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in free]


def failing(source: str, error: BaseException) -> HauberkError:
    """An error of the user's own code, with its line and, where it is known, its remedy."""
    where = own_line(error)
    said = f"{source} fails at {where}: {first_line(error)}" if where else f"{source} fails: {first_line(error)}"
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return HauberkError(said, "run from the folder that the path starts in, or write the whole path")
    if "state_dict" in text and f'"{PREFIX}' in text:
        return HauberkError(
            said,
            "DataParallel saved the file, so strip its prefix: "
            f"{{k.removeprefix('{PREFIX}'): v for k, v in state.items()}}",
        )
    if "state_dict" in text:
        return HauberkError(said, "the checkpoint belongs to another network: compare its keys with model.state_dict()")
    return HauberkError(said, "correct it, then run the command again")


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return "a state_dict" if hasattr(value, "keys") and hasattr(value, "values") else type(value).__name__
