"""Data as a user names it: a registered name, a folder, an ``.npz`` or a YAML file; completed by what a model takes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hauberk import reading, registry
from hauberk.data import folder, npz
from hauberk.data.arrays import Arrays, to_integers, to_labels, to_nchw
from hauberk.data.dataset import Dataset
from hauberk.data.files import data_root
from hauberk.data.splits import split
from hauberk.errors import HauberkError

USUAL = (28, 32, 64, 96, 128, 160, 192, 224, 256, 299, 384, 8, 16)  # pixels a side of the images of well-known sets
LARGE = 384  # a photograph of more is rather resized before a model sees it
PATHS = {"image_folder": "folder", "npz": "file"}  # loaders of the user's own data, and what names their place
COLOURS = {1: "grey", 3: "colour"}
KNOWN = "a name of hauberk list datasets, a folder with a folder for each class, an .npz file or a YAML file"
Spec = dict[str, Any]


@dataclass(frozen=True)
class Takes:
    """The images that a model takes.

    Args:
        tried: whether it can be called on images of so many channels and pixels a side.
        sizes: that its layers suggest, the likeliest first.
    """

    tried: Callable[[int, int], bool]
    sizes: tuple[int, ...] = ()


def described(name: str) -> Spec:
    """The description that a name or a path stands for; for a path without the settings that depend on the model.

    A folder without ``train`` is for judging: all of its images are test images.

    Raises:
        HauberkError: if there is neither.
    """
    path = Path(name)
    known = [e.name for e in registry.entries("dataset")]
    if name in known:
        return {"name": name}
    if path.suffix.lower() in (".yaml", ".yml"):
        return _of_yaml(path)
    root = data_root(None)
    place = next((p for p in (root / path, path) if p.exists()), None)  # in the order of ``placed``
    if place is None:
        hint = registry.suggestion(name, known) or f"expected {KNOWN}"
        what = "folder or file" if len(path.parts) > 1 or path.suffix else "dataset called"
        raise HauberkError(f"there is no {what} {name!r}", hint if "mean" in hint else f"{hint}, here or in {root}")
    if place.is_dir():
        shares = {} if (place / "train").is_dir() else {"test_fraction": 1.0, "val_fraction": 0.0}
        return {"name": "image_folder", "folder": name} | shares
    if path.suffix.lower() == ".npz":
        return {"name": "npz", "file": name}
    raise HauberkError(f"{name} is not a data set", f"expected {KNOWN}")


def _of_yaml(path: Path) -> Spec:
    if not path.exists():
        raise HauberkError(f"there is no file {path}", f"expected {KNOWN}")
    found = reading.yaml_file(path)
    inner = found.get("data", found) if isinstance(found, dict) else found
    if isinstance(inner, str):
        return described(inner)
    if not isinstance(inner, dict) or "name" not in inner:
        raise HauberkError(
            f"{path} does not describe a data set", "for example {name: image_folder, folder: xrays, size: 28}"
        )
    return dict(inner)


def placed(spec: Spec) -> Spec:
    """The description with the folder that a relative path starts in, where that is the current one.

    A path is looked for in the folder of data sets first, as in a recipe, then in the current folder.
    """
    if isinstance(spec.get("of"), dict):  # a part of other data
        return spec | {"of": placed(spec["of"])}
    key = PATHS.get(str(spec.get("name")))
    named = None if key is None else spec.get(key)
    if not isinstance(named, str) or "root" in spec or Path(named).is_absolute():
        return spec
    return spec | {"root": "."} if Path(named).exists() and not (data_root(None) / named).exists() else spec


def completed(spec: Spec, takes: Takes) -> tuple[Spec, tuple[str, ...]]:
    """The description with what is missing: size and channels as the model takes them, the layout of arrays.

    Args:
        spec: the description.
        takes: what the model takes.

    Returns:
        the description, and what was chosen, in sentences.

    Raises:
        HauberkError: if there is more than one answer: a question.
    """
    if isinstance(spec.get("of"), dict):
        inner, said = completed(spec["of"], takes)
        return spec | {"of": inner}, said
    spec = placed(spec)
    path = data_root(Path(spec["root"]) if "root" in spec else None) / str(spec.get(PATHS.get(spec["name"], ""), ""))
    if spec["name"] == "image_folder" and not {"size", "channels"} <= set(spec) and path.is_dir():
        return _of_folder(spec, path, takes)
    if spec["name"] == "npz" and path.is_file():
        return _of_arrays(spec, path, takes)
    return spec, ()


def _of_folder(spec: Spec, path: Path, takes: Takes) -> tuple[Spec, tuple[str, ...]]:
    stored = folder.survey(path)
    sides = sorted({min(size) for size in stored.sizes})
    own = sides[0] if len(sides) == 1 else None
    first = 1 if stored.grey else 3
    channels = [int(spec["channels"])] if "channels" in spec else [first, 4 - first]
    sizes = [int(spec["size"])] if "size" in spec else ([own] if own is not None and own <= LARGE else [])
    found = _fitting(takes, channels, sizes)
    if found is None and "size" not in spec:
        fitting = [f for size in (*takes.sizes, *USUAL) if (f := _fitting(takes, channels, [size]))]
        every = sorted({size for _, size in fitting})
        if len(every) == 1:
            found = fitting[0]
        elif every or own is None:
            raise _which_size(spec, sides, every)
    chosen = found or (channels[0], sizes[0] if sizes else own)
    if chosen[1] is None:
        raise _which_size(spec, sides, [])
    taken = spec | {"size": chosen[1], "channels": chosen[0]}
    if {"size", "channels"} <= set(spec):
        return taken, ()
    asked = bool({"size", "channels"} & set(spec))
    why = "as the model takes them" if found else "as asked" if asked else "as they are stored"
    return taken, (f"The images are given to the model in {COLOURS[chosen[0]]}, {chosen[1]}x{chosen[1]}, {why}.",)


def _fitting(takes: Takes, channels: list[int], sizes: list[int]) -> tuple[int, int] | None:
    """The first form that the model can be called on."""
    return next(((c, size) for size in sizes for c in channels if takes.tried(c, size)), None)


def _which_size(spec: Spec, sides: list[int], every: list[int]) -> HauberkError:
    seen = f"{sides[0]} pixels" if len(sides) == 1 else f"{sides[0]} to {sides[-1]} pixels"
    can = f", and the model takes any of {', '.join(map(str, every[:6]))}" if every else ""
    return HauberkError(
        f"which size? The shorter sides of the images have {seen}{can}",
        f"give the size that the model was trained on: {_option(spec, f'size={every[0] if every else 224}')}",
    )


def _option(spec: Spec, setting: str) -> str:
    """The option that names these data with one more setting, quoted for a shell."""
    key = PATHS[spec["name"]]
    place = spec[key] if "," not in spec[key] else f"{spec['name']},{key}={json.dumps(spec[key])}"
    return f"--data {shlex.quote(f'{place},{setting}')}"


def _of_arrays(spec: Spec, path: Path, takes: Takes) -> tuple[Spec, tuple[str, ...]]:
    shape = npz.image_shape(path)
    layout = spec.get("layout") or npz.likely_layout(shape)
    if layout is None:
        raise HauberkError(
            f"which axes? The images of {path} have shape {'x'.join(map(str, shape))}",
            "set layout=NCHW if the channels come first, layout=NHWC if they come last: "
            f"{_option(spec, 'layout=NHWC')}",
        )
    sizes = dict(zip(layout, shape, strict=False)) | ({"C": 1} if layout == "NHW" else {})
    spec, own, side = spec | {"layout": layout}, sizes.get("C", 0), sizes.get("H", 0)
    other = 4 - own
    if "channels" in spec or own not in COLOURS or side != sizes.get("W"):
        return spec, ()
    if takes.tried(own, side) or not takes.tried(other, side):
        return spec, ()  # the check says what the model makes of images that it does not take
    return spec | {"channels": other}, (f"The images are given to the model in {COLOURS[other]}, as it takes them.",)


def of_arrays(images: np.ndarray, labels: np.ndarray, outputs: Callable[[Tensor], int] | None = None) -> Dataset:
    """Images in memory as a data set for evaluation: all of them are test images.

    Args:
        images: as ``npz`` takes them, in any layout that their shape tells.
        labels: classes, shape (N,).
        outputs: how many logits the model gives on some images: the data has as many classes, if labels allow it.

    Raises:
        HauberkError: on other shapes, types or ranges.
    """
    layout = npz.likely_layout(images.shape)
    if layout is None:
        raise HauberkError(
            f"which axes? The images have shape {tuple(images.shape)}",
            "give them as (N, C, H, W), for example by permute",
        )
    whole = Arrays(to_nchw(to_integers(images, "images"), layout, "images"), to_labels(labels, "labels"))
    test = split("test", whole, np.arange(len(whole.labels)))
    if not len(test):
        raise HauberkError("there are no images", "give at least one")
    known = 0 if outputs is None else outputs(test.select(slice(2)).batch().images)
    classes = max(reading.check_classes(int(whole.labels.max(initial=0)) + 1, "labels"), known, 2)
    none = Arrays(whole.images[:0], whole.labels[:0])
    train, val = (split(name, none, np.arange(0)) for name in ("train", "val"))
    return Dataset("images", tuple(str(k) for k in range(classes)), train, val, test)
