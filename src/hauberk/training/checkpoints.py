"""Checkpoints of the training state: written so that they are whole or absent, read so that they cannot run code."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hauberk import reading, unpacking
from hauberk.data.source import Source
from hauberk.errors import HauberkError
from hauberk.objectives.base import Objective
from hauberk.storage import atomic_write
from hauberk.training.config import Training

FORMAT = 1
HARMLESS = ("threads", "checkpoint_minutes")  # the weights do not depend on them
YOUNG = {  # than the format: older checkpoints fit where they are off
    "swa": ("swa",),
    "awp": ("awp", "awp_start"),
    "gap_images": ("gap_images",),
    "collapse": ("collapse",),
}


def purpose(model: nn.Module, objective: Objective, source: Source, config: Training) -> dict[str, str]:
    """The settings that must be the same for a checkpoint to fit: all on which the weights depend."""
    settings = {f.name: str(getattr(config, f.name)) for f in fields(config) if f.name not in HARMLESS}
    for switch, names in YOUNG.items():
        if not getattr(config, switch):
            for name in names:
                del settings[name]
    shapes = "|".join(f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items())
    return settings | {
        "objective": " ".join([repr(objective), *filter(None, [objective.outside()])]),
        "seed": str(source.seed),
        "model": f"{type(model).__name__} {hashlib.sha256(shapes.encode()).hexdigest()[:12]}",
        "data": str(source),
    }


def save(path: Path, purpose: Mapping[str, str], content: Mapping[str, Any]) -> None:
    """Write a checkpoint: to memory, to a temporary file, to the disk, then rename.

    Args:
        path: where; what was there before stays whole until the new one is.
        purpose: what the training run is (objective, settings, data ...), compared when it is read.
        content: tensors and plain values.

    Raises:
        HauberkError: if the disk is full or the folder cannot be written; the earlier checkpoint is untouched.
    """
    buffer = io.BytesIO()
    torch.save({"hauberk_training": FORMAT, "purpose": dict(purpose), "content": dict(content)}, buffer)
    atomic_write(path, buffer.getvalue())


def load(path: Path, purpose: Mapping[str, str], device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Read a checkpoint, or return None where there is none.

    Args:
        path: where.
        purpose: what the training run is; a checkpoint of another one is refused.
        device: where the tensors go.

    Raises:
        HauberkError: if the file is truncated, is not a checkpoint of Hauberk, or belongs to another training run.
    """
    if not path.exists():
        return None
    again = "remove it to start training again, or restore a whole copy"
    try:
        content = reading.content(path, reading.CHECKPOINT_BYTES, links=False)
        unpacking.check_stored(path, content)
    except OSError as error:
        raise HauberkError(f"cannot read {path}: {error.strerror}", "check the disk and the permissions") from error
    try:
        found = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:  # what a foreign file breaks in the reader is not ours to list
        raise HauberkError(f"{path} is truncated or not a checkpoint", again) from error
    if not isinstance(found, dict) or found.get("hauberk_training") != FORMAT:
        raise HauberkError(f"{path} is not a training checkpoint of this version of Hauberk (format {FORMAT})", again)
    _same(path, found["purpose"], purpose)
    state: dict[str, Any] = found["content"]
    return state


def _same(path: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for key in {**wanted, **found}:
        before, now = found.get(key), wanted.get(key)
        if before != now:
            raise HauberkError(
                f"{path} belongs to another training run: its {key} was {before}, now it is {now}",
                "choose another run directory, or remove the checkpoint to start again",
            )

