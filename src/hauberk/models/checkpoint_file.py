"""Weights in a file, loaded into a network that the user's code makes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from hauberk import unpacking
from hauberk.classifier import Normalize
from hauberk.errors import HauberkError, reason

# where training programs put a model's weights in what they save, the likeliest first
NESTED = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "state_dict_ema",
    "model_ema",
)  # fmt: skip
DEPTH = 3  # mappings within each other
NAMED = 4  # keys that a sentence names, before it counts the rest
SAVE = "save only its weights: torch.save(model.state_dict(), 'weights.pt')"
State = dict[str, Tensor]


def read_state(path: Path, content: bytes) -> tuple[State, tuple[str, ...]]:
    """The weights of a checkpoint by name, as its file has them.

    Nothing in the file is run: ``.safetensors`` holds only numbers, and of any other file only plain values are read.

    Args:
        path: of the file.
        content: its bytes.

    Returns:
        the weights, and remarks in sentences: which other weights of the file were left out.

    Raises:
        HauberkError: if it is damaged, holds code, or no weights.
    """
    if path.suffix.lower() == ".safetensors":
        unpacking.check_safetensors(path)
        try:
            return safetensors.torch.load(content), ()
        except safetensors.SafetensorError as error:
            raise _damaged(path, error) from error
    unpacking.check_stored(path, content)
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _code(path, error) from error
    except Exception as error:  # a damaged pickle makes its reader raise anything
        raise _damaged(path, error) from error
    return _weights(found, path)


def _damaged(path: Path, error: Exception) -> HauberkError:
    return HauberkError(f"{path} is truncated or no checkpoint: {reason(error)}", "copy it again, or save it again")


def _code(path: Path, error: Exception) -> HauberkError:
    """What stands in a pickle that is more than plain values."""
    said = str(error)
    name = next((w.strip("`.,") for w in said.split("GLOBAL ")[1:2] for w in w.split()[:1]), "")
    if not name:
        return _damaged(path, error)
    return HauberkError(
        f"{path} holds more than weights: loading it would run the code of {name}, which Hauberk does not do", SAVE
    )


def _weights(found: Any, path: Path, depth: int = DEPTH) -> tuple[State, tuple[str, ...]]:
    """The mapping of names to tensors in what a training program saved."""
    if not isinstance(found, Mapping):
        raise HauberkError(f"{path} holds a {type(found).__name__}, expected weights by name", SAVE)
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    inner = [name for name, value in found.items() if depth and _holds_tensors(value, depth - 1)]
    likely = [name for name in NESTED if name in inner] or (inner if len(inner) == 1 else [])
    if likely and len(tensors) <= 1:  # beside the weights there may be one tensor, such as a step
        state, said = _weights(found[likely[0]], path, depth - 1)
        return state, (*_left_out(path.name, likely[0], [name for name in inner if name != likely[0]]), *said)
    if not tensors:
        keys = _named(map(str, found))
        raise HauberkError(f"{path} holds no weights by name; its entries are {keys or 'none'}", SAVE)
    return tensors, ()


def _left_out(file: str, taken: str, others: Sequence[Any]) -> tuple[str, ...]:
    if not others:
        return ()
    names = _named(map(str, others))
    return (f"{file}: the weights under {taken} are taken, and those under {names} are not; to judge these, save them "
            "alone.",)  # fmt: skip


def _holds_tensors(value: Any, depth: int) -> bool:
    if not isinstance(value, Mapping):
        return False
    named = any(isinstance(key, str) and isinstance(v, Tensor) for key, v in value.items())
    return named or (depth > 0 and any(name in value and _holds_tensors(value[name], depth - 1) for name in NESTED))


def fill(model: nn.Module, state: State, file: str, arch: str) -> tuple[str, ...]:
    """Load a checkpoint's weights into a network, with any prefix before their names.

    Names may begin with the prefixes of wrappers (``module.``, ``model.``, ``_orig_mod.``), and the network may have
    the net that was saved as a part, beside a normalisation of its own.

    Args:
        model: the network, changed in place.
        state: from ``read_state``.
        file: what the checkpoint is called, for messages.
        arch: what the network is called.

    Returns:
        remarks, in sentences.

    Raises:
        HauberkError: if a weight is missing, too many, or of another size, or the file holds several nets that fit.
    """
    wanted = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    given = _normalisation(model)  # has its numbers from the factory
    fitting = _prefixes(state, {k: v for k, v in wanted.items() if k not in given})
    if len(fitting) > 1:
        raise _which(file, arch, [cut for cut, _ in fitting])
    (cut, put), *_ = fitting
    beside = [name for name in state if not name.startswith(cut)]
    renamed = {put + name.removeprefix(cut): value for name, value in state.items() if name.startswith(cut)}
    other = [k for k, v in renamed.items() if k in wanted and v.shape != wanted[k].shape]
    try:
        left = model.load_state_dict({k: v for k, v in renamed.items() if k not in other}, strict=False)
    except RuntimeError as error:
        raise HauberkError(f"{file} does not fit {arch}: {reason(error)}", _BUILD) from error
    kept = {*other, *given, *(k for k in wanted if k.endswith("num_batches_tracked"))}
    _check_fit(
        f"{file} does not fit {arch}", [k for k in left.missing_keys if k not in kept], left.unexpected_keys,
        [f"{k} is {_size(renamed[k])}, expected {_size(wanted[k])}" for k in other],
    )  # fmt: skip
    return (f"{file}: {len(beside)} entries beside the weights are passed over: {_named(beside)}.",) if beside else ()


_BUILD = "build the network as it was when the file was saved: its width, channels and number of classes"


def _check_fit(what: str, missing: list[str], unexpected: list[str], other: list[str]) -> None:
    said = [
        f"{len(names)} {word} ({_named(names)})"
        for names, word in ((missing, "missing"), (unexpected, "not expected"), (other, "of another size"))
        if names
    ]
    if said:
        raise HauberkError(f"{what}: of its weights, {', '.join(said)}", _BUILD)


def _which(file: str, arch: str, cuts: Sequence[str]) -> HauberkError:
    names = " and ".join(f"{cut}*" if cut else "those without a prefix" for cut in cuts)
    kept = f"torch.save({{k: v for k, v in state.items() if k.startswith({cuts[-1]!r})}}, 'one.pt')"
    return HauberkError(
        f"which weights? {file} holds several networks that fit {arch} equally well: {names}",
        f"save the weights of one network in a file of their own: {kept}",
    )


def _prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """What to cut from the names of a checkpoint and to put before them, so that the most fit; several that tie."""
    first = next(iter(wanted), "")
    best, chosen = _fit(state, wanted, _renamed(state, wanted, "", "")), {("", ""): _renamed(state, wanted, "", "")}
    for cut, put in sorted({_split(name, first) for name in state}):
        named = _renamed(state, wanted, cut, put)
        fit = _fit(state, wanted, named)
        if 2 * fit[0] <= len(wanted) or fit < best or named in chosen.values():
            continue  # mostly another net, which is said in its own names; or the same weights under the same names
        if fit > best:
            best, chosen = fit, {(cut, put): named}
        elif ("", "") not in chosen:
            chosen[cut, put] = named
    return list(chosen)


def _renamed(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], cut: str, put: str) -> dict[str, str]:
    """The names that weights get in the network, and those that they have in the file."""
    return {n: k for k in state if k.startswith(cut) and (n := put + k[len(cut) :]) in wanted}


def _fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], named: Mapping[str, str]) -> tuple[int, int]:
    """How many weights have the right size, and how many get a name."""
    return sum(state[old].shape == wanted[new].shape for new, old in named.items()), len(named)


def _split(name: str, wanted: str) -> tuple[str, str]:
    """What stands before the parts that two dotted names end with alike."""
    one, other = name.split("."), wanted.split(".")
    same = 0
    while same < min(len(one), len(other)) and one[-1 - same] == other[-1 - same]:
        same += 1
    cut, put = one[: len(one) - same], other[: len(other) - same]
    return "".join(f"{part}." for part in cut), "".join(f"{part}." for part in put)


def _normalisation(model: nn.Module) -> set[str]:
    """The names of the numbers in layers that normalise the image."""
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, Normalize)]
    return {f"{name}.{key}".lstrip(".") for name, layer in layers for key in layer.state_dict()}


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _named(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more
