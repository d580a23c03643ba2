"""A model as the user names it: code of the user's own, or a file, with the code of its network if needed."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import nn

from hauberk import reading, trust
from hauberk.catalogue.model_files import FILES, KNOWN, ONNX
from hauberk.errors import HauberkError
from hauberk.models.checkpoint_file import fill, read_state
from hauberk.models.onnx_file import REMARK, SOFTMAX, OnnxFile
from hauberk.models.own import own
from hauberk.models.program_file import ExportedFile, TorchScriptFile

PROGRAM = {"torchscript": "TorchScript", "torch_export": "torch.export", "onnx": "ONNX"}


@dataclass(frozen=True)
class Source:
    """A model that was opened, and how a run names it.

    Args:
        model: in eval mode.
        named: its entries in ``recipe.yaml``: ``factory``, and for a file its name, SHA-256 and kind.
        remarks: remarks, in sentences.
    """

    model: nn.Module
    named: dict[str, Any]
    remarks: tuple[str, ...] = ()


def is_file(text: str) -> bool:
    """Whether a text names a file with a model, by its ending."""
    return Path(text).suffix.lower() in FILES and ":" not in text


def check_named(text: str, arch: str | None) -> None:
    """Raise if a text names no model, as far as can be seen without opening it, or code for one that is no checkpoint.

    Raises:
        HauberkError: saying what was expected.
    """
    if text.endswith(".py"):
        raise HauberkError(
            f"{text} is a file of code",
            f"name the function in it that makes the model, for example {Path(text).stem}:build",
        )
    if not is_file(text) and Path(text).is_file():
        raise HauberkError(f"{text} does not have the ending of a file that Hauberk opens", f"expected {KNOWN}")
    if not is_file(text) and ":" not in text:
        hint = f"train one with: hauberk train RECIPE, or give {KNOWN}"
        raise HauberkError(f"there is no run directory {text}", hint)
    if is_file(text) and not Path(text).exists():
        raise HauberkError(f"there is no file {text}", f"expected {KNOWN}")
    if arch is not None and not is_file(text):
        raise HauberkError(f"--arch names the code of a checkpoint, but {text} is not a checkpoint", "leave --arch out")


def open_source(text: str, arch: str | None = None) -> Source:
    """The model that a text names.

    Args:
        text: ``module:factory``, or the path of a file.
        arch: for a checkpoint, the ``module:factory`` that makes the network without its weights.

    Raises:
        HauberkError: if there is none, the file is damaged or does not fit, or it is code that the user does not trust.
    """
    check_named(text, arch)
    if not is_file(text):
        return Source(own(text), {"factory": text})
    path = Path(text)
    content = reading.content(path, reading.CHECKPOINT_BYTES)
    named = {"file": str(path), "sha256": hashlib.sha256(content).hexdigest()}
    kind = _kind(path, content)
    if kind == "checkpoint":
        return _filled(path, content, arch, named)
    if arch is not None:
        raise HauberkError(f"{path} is a {PROGRAM[kind]} file, which already contains its network", "leave --arch out")
    if kind == "onnx":
        model = OnnxFile(content, path.name)
        return Source(model, named | {"kind": kind}, (REMARK, SOFTMAX) if model.softmax else (REMARK,))
    trust.require_file(str(path), PROGRAM[kind])
    made = TorchScriptFile if kind == "torchscript" else ExportedFile
    return Source(made(content, path.name), named | {"kind": kind})


def _kind(path: Path, content: bytes) -> str:
    """What a file is, by its ending and by what its archive holds; nothing of it is loaded."""
    if path.suffix.lower() == ONNX:
        return "onnx"
    if path.suffix.lower() == ".safetensors":
        return "checkpoint"
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "checkpoint"
    inner = {name.split("/", 1)[-1] for name in names}
    if any(name.startswith("models/") and name.endswith(".json") for name in inner) or "archive_format" in inner:
        return "torch_export"
    return "torchscript" if "constants.pkl" in inner else "checkpoint"


def _filled(path: Path, content: bytes, arch: str | None, named: dict[str, Any]) -> Source:
    state, said = read_state(path, content)
    if arch is None:
        raise HauberkError(
            f"{path} holds only weights, and the code of their network is not known",
            "name the code of the network: --arch module:factory",
        )
    model = own(arch)
    remarks = fill(model, state, path.name, arch)
    return Source(model.eval(), {"factory": arch} | named, (*said, *remarks))
