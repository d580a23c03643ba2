"""A model's outputs on fixed images, kept beside its records and compared again before any of them is used.

A key holds what can be known of a model by looking at it.  What cannot be known that way (a file that it reads, a
compiled function) shows in its answers: logits on noise and on a few images of the data, in the deployed precision, on
tiles of one shape, of a random model with the global generators set.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hauberk.batch import Batch, Samples
from hauberk.boundary import called
from hauberk.classifier import frozen, predictor_name, weights_hash
from hauberk.errors import HauberkError
from hauberk.identity import structure
from hauberk.randomness import fenced, stream
from hauberk.records import Part, data_hash, part, read_all
from hauberk.runs import environment

ROWS = 8  # noise images, and as many of the data
TILE = 16
# On another machine, device or number of threads, a logit may differ by this share of the row's largest: rounding.
TOLERANCE = {"float64": 1e-6, "float32": 1e-3, "float16": 5e-2, "bfloat16": 5e-2}
KERNELS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")


@dataclass(frozen=True)
class Answers:
    """The outputs that tell apart functions that share a name.

    Args:
        id: the hash of the first stored fingerprint that this model agrees with.
        news: one sentence where it agrees with none though records of its name are there; else empty.
        new: its own fingerprint, where it is to be stored before its first record.
        mine: its own fingerprint.
        images: on which the model was run.
    """

    id: str
    news: str
    new: tuple[Part, ...]
    mine: Part
    images: Batch


def probes(samples: Samples) -> Batch:
    """A few images of a data set, chosen by the hash of their ids, so that the choice does not depend on its order."""
    ids = samples.ids.tolist()
    order = sorted(range(len(ids)), key=lambda row: hashlib.sha256(f"probe {ids[row]}".encode()).digest())
    rows = torch.tensor(sorted(order[:ROWS]), dtype=torch.int64)  # on the CPU, as all data
    return samples.select(rows).batch()


def answers(model: nn.Module, images: Tensor, chosen: Batch | None, folder: Path) -> Answers:
    """Run a model, and compare its outputs with the stored ones.

    Args:
        model: a classifier in eval mode.
        images: of the evaluation; their shape, type and device are those of the noise.
        chosen: images of the data set, from ``probes``; None uses only noise.
        folder: of the records.
    """
    asked = _noise(images[:1])
    if chosen is not None:
        taken = chosen.to(images.device)
        asked = Batch(torch.cat([asked.images, taken.images.to(images)]), torch.cat([asked.labels, taken.labels]),
                      torch.cat([asked.ids, taken.ids]))  # fmt: skip
    mine = _part(model, asked)
    same = [p for p in read_all(folder, "fingerprint") if _about(p) == _about(mine)]
    same.sort(key=lambda p: (int(p.facts["number"]), p.key))
    for known in same:
        if agree(known, mine):
            return Answers(str(known.unit["answers"]), "", (), mine, asked)
    mine = Part(mine.kind, mine.unit, {**mine.facts, "number": len(same)}, mine.table)
    news = f"{mine.unit['predictor']} answers otherwise than when its records were made: new ones stand beside the old"
    return Answers(str(mine.unit["answers"]), news if same else "", (mine,), mine, asked)


def check_copy(model: nn.Module, asked: Answers) -> None:
    """Raise unless a copy of a model in another process answers as the model did where it came from.

    Raises:
        HauberkError: if it does not: it reads something that is not the same there.
    """
    if not agree(asked.mine, _part(model, asked.images)):
        raise HauberkError(
            "the model gives other answers in a worker process: it depends on something that is not sent with it",
            "make the files and settings that it reads available to the workers, or use --executor inline",
        )


def agree(known: Part, mine: Part) -> bool:
    """Whether two fingerprints may be of one function: bit for bit where all was alike, else within the tolerance."""
    one, other = (np.array(p.table.column("logits").to_pylist(), dtype=np.float64) for p in (known, mine))
    if one.shape != other.shape:
        return False
    if known.facts["kernel"] == mine.facts["kernel"] and known.facts["repeats"] and mine.facts["repeats"]:
        return bool(np.array_equal(one, other, equal_nan=True))
    return _near(one, other, str(mine.unit["dtype"]))


def _near(one: np.ndarray, other: np.ndarray, dtype: str) -> bool:
    size = np.abs(np.nan_to_num(one, nan=0.0, posinf=0.0, neginf=0.0)).max(axis=-1, keepdims=True, initial=0.0)
    allowed = TOLERANCE.get(dtype, TOLERANCE["float32"]) * np.maximum(size, 1e-6)
    with np.errstate(invalid="ignore"):
        near = np.abs(one - other) <= allowed
    return bool((near | (one == other) | (np.isnan(one) & np.isnan(other))).all())


def _about(item: Part) -> tuple[str, ...]:
    return tuple(str(item.unit[name]) for name in ("predictor", "weights", "structure", "dtype", "data"))


def _noise(like: Tensor) -> Batch:
    """Uniform noise and noise of few values, of fixed streams."""
    shape = tuple(like.shape[1:])
    draws = [stream(0, row, "probe").random(shape, dtype=np.float32) for row in range(ROWS)]
    images = torch.from_numpy(np.stack([d if i % 2 else np.round(d * 3) / 3 for i, d in enumerate(draws)])).to(like)
    labels = torch.zeros(ROWS, dtype=torch.int64, device=like.device)
    return Batch(images, labels, -1 - torch.arange(ROWS, device=like.device))


def _part(model: nn.Module, asked: Batch) -> Part:
    logits, repeats, failure = _asked(model, asked)
    dtype = dtype_of(model)
    digest = hashlib.sha256(json.dumps([list(logits.shape), logits.tolist(), failure]).encode()).hexdigest()[:16]
    unit = {
        "predictor": predictor_name(model), "weights": weights_hash(model), "structure": structure(model),
        "method": {"name": "fingerprint"}, "seed": 0, "tile": TILE, "dtype": dtype, "data": data_hash(asked),
        "answers": digest,
    }  # fmt: skip
    facts = {"kernel": kernel(model), "environment": environment(), "repeats": repeats, "failure": failure}
    rows = [row.tolist() for row in logits.reshape(len(asked), -1)] if len(logits) else [[] for _ in asked.ids]
    return part("fingerprint", unit, facts, {"id": asked.ids.tolist(), "logits": rows})


def _asked(model: nn.Module, asked: Batch) -> tuple[np.ndarray, bool, str]:
    """Logits of the model and of its parts, side by side; whether they come again; why there are none."""
    devices = sorted({t.device.index or 0 for t in model.parameters() if t.device.type == "cuda"})
    try:
        found = []
        for _ in range(2):
            with fenced(0, devices), frozen(model), torch.no_grad():
                found.append(np.concatenate([_logits(m, asked) for m in _inside(model)], axis=1))
    except Exception as error:  # whatever the user's code raises; the evaluation itself will say it
        return np.zeros((0, 0)), False, type(error).__name__
    first, second = found
    if np.array_equal(first, second, equal_nan=True):
        return first, True, ""
    if first.shape == second.shape and _near(first, second, dtype_of(model)):
        return first, False, ""
    return np.zeros((0, 0)), False, "its answers do not come again"


def _inside(model: nn.Module) -> Iterable[nn.Module]:
    """The model, and the models that it is made of: a mix with weight 0 or 1 does not run one of them."""
    inner = (getattr(model, name, None) for name in ("accurate", "robust", "base"))
    return [model, *(m for m in inner if isinstance(m, nn.Module))]


def _logits(model: nn.Module, asked: Batch) -> np.ndarray:
    tiles = [called(model, t.images)[:used] for t, used in asked.tiles(TILE)]
    return np.asarray(torch.cat(tiles).detach().double().cpu().numpy())


def dtype_of(model: nn.Module) -> str:
    """The precision of a model's weights, as records call it."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return str(dtype).removeprefix("torch.")


def kernel(model: nn.Module) -> dict[str, Any]:
    """All that the last bits of an answer may depend on, beside the model."""
    device = next((p.device.type for p in model.parameters()), "cpu")
    known = environment()
    return {name: known[name] for name in ("cpu", "threads", "torch")} | {
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "device": device if device == "cpu" else str(known["accelerator"]),
        "precision": torch.get_float32_matmul_precision(),
        "settings": {name: os.environ[name] for name in KERNELS if name in os.environ},
    }
