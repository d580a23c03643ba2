"""The contents of the key of a unit of work: all on which its result depends."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import nn

import hauberk
from hauberk import registry
from hauberk.batch import Batch, Samples
from hauberk.classifier import TILE, weights_hash
from hauberk.data.choice import Choice
from hauberk.data.dataset import Calibration
from hauberk.devices import Precision, device_of
from hauberk.evaluation.fingerprint import dtype_of
from hauberk.identity import foreign_code, structure

MACHINERY = 3  # raised when what all methods share (projection, queries, judgement, tiles) changes an answer


@dataclass(frozen=True)
class Setting:
    """What all units of one evaluation share.

    Args:
        dataset: its name.
        split: ``test``, or ``val`` for calibration.
        classes: their names.
        seed: of all randomness.
        tile: rows of every model call, and images of one unit (of an attack: four tiles).
        gallery: the first so many images are kept in the records for the report's pictures.
        choice: how the images were chosen, ``hashed`` or ``first``.
        precision: of the products on a GPU.
        calibration: the part of the test split that choices were made on, where there is one.
        probes: images of the data set on which the model is run before its records are used, see ``fingerprint``.
    """

    dataset: str
    split: str
    classes: tuple[str, ...]
    seed: int = 0
    tile: int = TILE
    gallery: int = 12
    choice: Choice = "first"
    precision: Precision = "float32"
    calibration: Calibration | None = None
    probes: Batch | None = field(default=None, compare=False)


def unit_of(model: nn.Module, predictor: str, method: registry.Spec, setting: Setting) -> dict[str, Any]:
    """The part of a unit's description that all units of an evaluation share."""
    where = device_of(model).type
    unusual = {"device": where} if where != "cpu" else {}  # records that name none were made on the CPU
    unusual |= {"precision": setting.precision} if setting.precision != "float32" else {}
    return unusual | {
        "predictor": predictor,
        "weights": weights_hash(model),
        "structure": structure(model),  # strides, scales and numbers of votes have no weights
        "method": method,
        "hauberk": hauberk.__version__,
        "seed": setting.seed,
        "tile": setting.tile,
        "dtype": dtype_of(model),
    }


def facts_of(samples: Samples, setting: Setting) -> dict[str, Any]:
    """What is needed to read the rows of any kind."""
    choice = {} if setting.choice == "first" else {"choice": setting.choice}  # which records from before it lack
    held = {} if setting.calibration is None else {"calibration": dataclasses.asdict(setting.calibration)}
    return choice | held | {
        "dataset": setting.dataset,
        "split": setting.split,
        "classes": list(setting.classes),
        "shape": list(samples.image_shape),
    }


def revisions(*methods: object) -> dict[str, Any]:
    """The revision of the code of each method, and of those inside it; of the user's own, the hash of the code.

    A method whose answers change raises its ``revision``, so that records of the older code are not taken for its own.
    """
    found: dict[str, Any] = {"machinery": MACHINERY}
    waiting: list[Any] = list(methods)
    while waiting:
        item = waiting.pop()
        if isinstance(item, list | tuple):
            waiting += item
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            if hasattr(item, "revision"):
                found[type(item).__name__] = foreign_code(item) or item.revision
            if callable(outside := getattr(item, "outside", None)):
                found[f"{type(item).__name__} outside"] = outside()
            waiting += [getattr(item, f.name) for f in dataclasses.fields(item)]
    return found
