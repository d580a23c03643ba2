"""Arrays from files, converted to one form: 8-bit or 16-bit images (N, C, H, W) and integer labels (N,)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from hauberk.errors import HauberkError

Layout = Literal["NHWC", "NCHW", "NHW"]
Part = TypeVar("Part", bound=str)
NEAR = 1e-4  # of a 255th: floats nearer than this to bytes are bytes, as are those that their type rounds further
COLOUR = (1, 3, 4)
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow weighs red, green and blue


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images with their labels.

    Args:
        images: uint8 or uint16 array, shape (N, C, H, W).
        labels: integer array, shape (N,).

    Raises:
        HauberkError: if their numbers differ.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise HauberkError(
                f"expected one label for each image, got {len(self.images)} images and {len(self.labels)} labels",
                "the two files or arrays do not belong together",
            )


def to_nchw(images: np.ndarray, layout: Layout, name: str) -> np.ndarray:
    """Move the channels in front of height and width.

    Args:
        images: shape as ``layout`` says.
        layout: the meaning of the axes; N images, C channels, H rows, W columns.
        name: what the array is called, for messages.

    Returns:
        the same values, shape (N, C, H, W).

    Raises:
        HauberkError: if the array has another number of axes, or plainly the other layout.
    """
    if images.ndim != len(layout):
        hint = "grey images without a channel axis are layout: NHW" if images.ndim == 3 else "give its layout"
        raise HauberkError(f"{name}: expected {len(layout)} axes for layout {layout}, got shape {images.shape}", hint)
    if layout == "NHW":
        return images[:, None]
    first, last = images.shape[1], images.shape[3]
    channels, other = (first, last) if layout == "NCHW" else (last, first)
    if channels not in COLOUR and other in COLOUR:
        right = "NHWC" if layout == "NCHW" else "NCHW"
        raise HauberkError(
            f"{name}: shape {images.shape} read as {layout} would have {channels} channels", f"set layout: {right}"
        )
    return images if layout == "NCHW" else images.transpose(0, 3, 1, 2)


def to_channels(images: np.ndarray, channels: int | None, name: str) -> np.ndarray:
    """Grey images with three equal channels, or colours made grey by their luma; None leaves them as they are.

    Args:
        images: uint8 or uint16 array, shape (N, C, H, W).
        channels: 1 or 3.
        name: what the array is called, for messages.
    """
    own = images.shape[1]
    if channels in (None, own):
        return images
    if own not in (1, 3):
        raise HauberkError(f"{name} has {own} channels, expected 1 (grey) or 3 (colour)", "leave channels out")
    if channels == 3:
        return images.repeat(3, axis=1)
    grey: np.ndarray = np.rint(np.einsum("nchw,c->nhw", images, LUMA)).astype(images.dtype)
    return grey[:, None]


def one_depth(parts: Mapping[Part, Arrays]) -> dict[Part, Arrays]:
    """The same images with 16 bits a channel everywhere, if some have them: 8-bit values times 257."""
    deep = any(p.images.dtype == np.uint16 for p in parts.values())
    return {name: Arrays(deepened(p.images), p.labels) if deep else p for name, p in parts.items()}


def deepened(images: np.ndarray) -> np.ndarray:
    """8-bit values on the scale of 16 bits, :math:`257 v`, so that :math:`v / 255` stays what it is."""
    return images if images.dtype == np.uint16 else images.astype(np.uint16) * 257


def to_integers(images: np.ndarray, name: str) -> np.ndarray:
    r"""Pixels as uint8 or uint16: such integers as they are, floats :math:`x \in [0, 1]` as 255ths or 65,535ths.

    Floats that came from bytes, :math:`v / 255`, come back exactly as bytes; others are rounded to 65,535ths, and move
    by less than 0.00001.

    Raises:
        HauberkError: on another type, a NaN, or a float outside [0, 1].
    """
    if images.dtype.kind == "u" and images.dtype.itemsize <= 2:
        return images.astype(images.dtype.newbyteorder("="), copy=False)
    if not np.issubdtype(images.dtype, np.floating):
        raise HauberkError(
            f"{name}: expected uint8, uint16 or floats in [0, 1], got {images.dtype}",
            "convert: images.astype('float32')" if images.dtype == bool else "convert to numpy.uint8, or to floats",
        )
    if np.isnan(images).any():
        raise HauberkError(f"{name} holds NaN", "check how it was made")
    if images.size and (images.min() < 0.0 or images.max() > 1.0):
        raise HauberkError(
            f"{name}: expected floats in [0, 1], got values in [{images.min():.4g}, {images.max():.4g}]",
            "divide by 255, or undo the normalisation: it belongs inside the model",
        )
    near = max(NEAR, 64.0 * np.finfo(images.dtype).eps)  # 255 times half a unit in the last place below 1, or more
    scaled = images.astype(np.promote_types(images.dtype, np.float32), copy=False) * 255.0
    bytes_ = np.rint(scaled)
    if images.size == 0 or np.abs(scaled - bytes_).max() <= near:
        return bytes_.astype(np.uint8)
    return np.rint(images.astype(np.float64) * 65535.0).astype(np.uint16)


def to_labels(labels: np.ndarray, name: str) -> np.ndarray:
    """Class labels as int64, shape (N,); a second axis of length one is dropped.

    Raises:
        HauberkError: on another shape, or on values that are not integers.
    """
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or not np.issubdtype(flat.dtype, np.integer):
        raise HauberkError(
            f"{name}: expected integer labels of shape (N,), got {labels.dtype} of shape {labels.shape}",
            "one class number for each image: labels.argmax(1) if they are one-hot",
        )
    return flat.astype(np.int64)
