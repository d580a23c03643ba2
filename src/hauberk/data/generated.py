"""Generated images from a file in the layout in which they are published: ``image`` and ``label`` in one ``.npz``."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.lib import format as npy
from pydantic import Field
from torch import Tensor, nn

from hauberk import reading
from hauberk.data import files
from hauberk.data.arrays import Layout, to_labels
from hauberk.data.dataset import Dataset
from hauberk.data.generation import Check, replaced
from hauberk.data.npz import ALONE, likely_layout
from hauberk.data.provenance import Provenance
from hauberk.data.splits import hash_keys
from hauberk.errors import HauberkError
from hauberk.storage import replacing

PAIRS = (("image", "label"), *ALONE)
KNOWN = ("provenance", "seen")  # what Hauberk's own files hold beside them
LARGE = 1 << 29  # bytes of images that are not read at once
LOCAL = struct.Struct("<4s22xHH")  # the head of a zip's member: its mark, and the lengths of two fields after it


def generated(  # noqa: PLR0913, PLR0917 - what a file of images does not say itself
    of: Dataset,
    file: Path,
    root: Path | None = None,
    images: Annotated[int, Field(ge=1, le=10**9)] | None = None,
    layout: Layout | None = None,
    labeller: nn.Module | None = None,
    judge: nn.Module | None = None,
    least: Annotated[float, Field(ge=0, le=1)] = 0.8,
    keep: Annotated[float, Field(gt=0, le=1)] = 1.0,
    generator: str = "",
    conditional: bool | None = None,
    trained_on: str = "",
    filter: str = "",
) -> Dataset:
    """A data set whose training images are those of a file of generated ones; validation and test stay as they are.

    Images are uint8, and stay in the file where it holds them unpacked (``numpy.savez``): they are mapped into memory,
    and a batch reads its own rows.  What ``hauberk generate`` writes says itself where it comes from; of other files
    the user says it.  A file without labels, or whose labels are not to be used, takes those of a labeller.

    Args:
        of: the data set that the images are like.
        file: the ``.npz`` file with ``image`` and ``label`` (or ``images`` and ``labels``, ...), relative to ``root``.
        root: the folder of data sets; see :func:`hauberk.data.load` for the default.
        images: how many to take, by hashes of their places, a larger number holding every smaller one; None for all.
        layout: the meaning of the image axes, where their shape does not tell it.
        labeller: a classifier whose classes are the labels, for example ``{name: run, path: runs/demo_standard}``.
        judge: a classifier that has learnt from real images and is asked whether it agrees with the labels.
        least: the share of labels that it has to agree with.
        keep: the share of each class that the judge (without one the labeller) is surest of, which is kept.
        generator: what made the images, where the file does not say it.
        conditional: whether it was asked for images of a class.
        trained_on: what it learnt from: ``train``, ``other`` images, or ``unknown``; see ``data.provenance``.
        filter: which images its authors kept.

    Raises:
        HauberkError: if the file is damaged or contradicts the recipe, or as ``generation.replaced``.
    """
    path = files.data_root(root) / file
    names = _names(path)
    pixels = stored(path, names["image"])
    if pixels.dtype != np.uint8:
        raise HauberkError(f"{path}: expected uint8 images, got {pixels.dtype}", "save (255 * images).round() as uint8")
    small = files.read_npz(path, [n for key, n in names.items() if key != "image"])
    told = _told(path, small.get("provenance"))
    said = {"generator": generator, "conditional": conditional, "trained_on": trained_on, "filter": filter}
    provenance = _agreed(path, told, said)
    chosen = _first_by_hash(len(pixels), images, path)
    labels = None if "label" not in names or labeller is not None else _labels(small[names["label"]], len(pixels), path)
    return replaced(
        of, _channels_first(pixels, layout, path)[chosen], labels if labels is None else labels[chosen], provenance,
        Check(labeller, judge, least, keep), small.get("seen"),
    )  # fmt: skip


def stored(path: Path, name: str) -> np.ndarray:
    """An array of an .npz file: mapped into memory where it stands there as it is, else unpacked and read.

    A mapped array is private: what is written to it never reaches the file.

    Raises:
        HauberkError: if it is packed and large, or no array.
    """
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        if member.file_size > LARGE:
            raise HauberkError(
                f"{path} holds {member.file_size:,} bytes of compressed images, which would have to fit into memory",
                "write the file again with numpy.savez, which does not compress, so that rows are read as needed",
            )
        return files.read_npz(path, [name])[name]
    with path.open("rb") as handle:
        handle.seek(member.header_offset)
        mark, *lengths = LOCAL.unpack(handle.read(LOCAL.size))
        if mark != b"PK\x03\x04":
            raise HauberkError(f"{path} is not a whole .npz file", "fetch it again")
        handle.seek(sum(lengths), 1)
        version = npy.read_magic(handle)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(handle)
        if dtype.hasobject or handle.tell() + dtype.itemsize * int(np.prod(shape)) > path.stat().st_size:
            raise HauberkError(f"{path}: {name} is not an array, or is incomplete", "fetch it again")
        return np.memmap(handle, dtype, "c", handle.tell(), shape, "F" if fortran else "C")


def write(path: Path, images: Tensor, labels: Tensor | None, provenance: Provenance, seen: np.ndarray) -> None:
    """Write generated images as ``generated`` reads them: uint8 NHWC, unpacked, with where they come from.

    Args:
        path: of the .npz file.
        images: uint8, shape (N, C, H, W).
        labels: int64, shape (N,); None where the generator knows none.
        provenance: of the generator; what is counted on the images is counted when they are read.
        seen: what it has learnt from (``generation.traces``).
    """
    told = {key: value for key, value in provenance.plain().items() if key in _TOLD}
    with replacing(path) as handle:
        arrays: dict[str, Any] = {} if labels is None else {"label": labels.numpy()}
        np.savez(handle, image=images.permute(0, 2, 3, 1).numpy(), seen=seen,
                 provenance=np.array(json.dumps(told, sort_keys=True)), **arrays)  # fmt: skip


_TOLD = ("generator", "trained_on", "conditional", "filter", "settings")


def _names(path: Path) -> dict[str, str]:
    """The arrays of the file by what they mean."""
    if not path.exists():
        raise HauberkError(f"expected the file {path}, which is not there",
                           "write one with hauberk generate, or download a published one")  # fmt: skip
    held = files.arrays_of(path)
    pair = next((p for p in PAIRS if set(p) <= set(held)), None) or next(
        ((p[0],) for p in PAIRS if p[0] in held), None)  # fmt: skip
    if pair is None:
        raise HauberkError(f"{path} holds {', '.join(held) or 'nothing'}, but no generated images",
                           "name the arrays image and label")  # fmt: skip
    return dict(zip(("image", "label"), pair, strict=False)) | {name: name for name in KNOWN if name in held}


def _labels(labels: np.ndarray, count: int, path: Path) -> Tensor:
    found = to_labels(labels, f"{path}, labels")
    if len(found) != count:
        raise HauberkError(f"{path} holds {count:,} images and {len(found):,} labels", "fetch it again")
    return torch.from_numpy(np.array(found))


def _channels_first(pixels: np.ndarray, layout: Layout | None, path: Path) -> Tensor:
    """The images as a tensor (N, C, H, W) that shares their memory."""
    meant: Literal["NHWC", "NCHW", "NHW"] | None = layout or likely_layout(pixels.shape)
    if meant is None or pixels.ndim != len(meant):
        raise HauberkError(f"which axes? The images of {path} have shape {pixels.shape}", "set layout: NHWC or NCHW")
    found = torch.from_numpy(pixels)
    return found[:, None] if meant == "NHW" else found if meant == "NCHW" else found.permute(0, 3, 1, 2)


def _first_by_hash(count: int, wanted: int | None, path: Path) -> Tensor | slice:
    if wanted is None:
        return slice(None)
    if wanted > count:
        raise HauberkError(f"{path} holds {count:,} images, {wanted:,} were asked for", "ask for fewer")
    return torch.from_numpy(np.sort(np.argsort(hash_keys(count, "generated images"), kind="stable")[:wanted]))


def _told(path: Path, text: np.ndarray | None) -> dict[str, Any]:
    """What the file says of its images."""
    if text is None:
        return {}
    value = reading.json_value(str(text), str(path))
    if not isinstance(value, dict) or not set(value) <= set(_TOLD):
        raise HauberkError(
            f"{path} describes its provenance in an unknown form", "write the file with hauberk generate"
        )
    return value


def _agreed(path: Path, told: dict[str, Any], said: dict[str, Any]) -> Provenance:
    """What file and recipe say together; a contradiction is an error."""
    given = {key: value for key, value in said.items() if value not in ("", None)}
    odd = next((key for key, value in given.items() if told.get(key, value) != value), None)
    if odd is not None:
        raise HauberkError(
            f"{path} says {odd}: {told[odd]!r}, but the recipe says {given[odd]!r}", f"leave {odd} out of the recipe"
        )
    known = {"generator": path.stem, "trained_on": "unknown", "filter": "none", "settings": {}} | told | given
    asked = known.get("conditional")
    return Provenance(
        str(known["generator"]), str(known["trained_on"]), asked if isinstance(asked, bool) else None,
        labels="file", filter=str(known["filter"]), settings=dict(known["settings"]),
    )  # fmt: skip
