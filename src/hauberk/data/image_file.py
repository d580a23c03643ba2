"""One image file, brought to the size and channels of its data set."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hauberk import reading
from hauberk.data.arrays import LUMA
from hauberk.data.png16 import is_png16, read_png16
from hauberk.errors import HauberkError, reason

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")  # whatever a file is called: other readers of Pillow start programs
_MODES: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}
_GREY = ("1", "L", "LA")
_KNOWN = (*_GREY, "P", "PA", "RGB", "RGBA")
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Form:
    """What every image is brought to.

    Args:
        size: pixels a side.
        channels: 1 or 3.
        share: of the shorter side that the central square has, in (0, 1].
    """

    size: int
    channels: int
    share: float = 1.0


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image as the data set has it, and what it was in its file.

    Args:
        pixels: uint8 or uint16 array, shape (C, size, size).
        stored: width and height in the file.
        grey: whether the file has no colours.
        turned: whether it was turned as its EXIF orientation says.
        transparent: whether some pixels are not opaque.
    """

    pixels: np.ndarray
    stored: tuple[int, int]
    grey: bool
    turned: bool
    transparent: bool


def read_image(path: Path, form: Form) -> ImageFile:
    """Read a PNG, JPEG or WebP file; 16-bit PNGs keep their depth.

    The orientation of EXIF is applied, transparent pixels are laid over black, the largest central square is
    cut out and resized (bicubic, antialiased); an image of the right size keeps its values.

    Args:
        path: the file.
        form: what it is brought to.

    Raises:
        HauberkError: if it is damaged, truncated or too large, has several frames, or has colours other than RGB or
            grey.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return decoded(path, form)


def decoded(path: Path, form: Form) -> ImageFile:
    """``read_image`` for threads: it leaves the filters of warnings alone, which all threads share.

    Pillow warns of images of 89 million pixels or more, and those of ``reading.PIXELS`` are refused here anyway.
    """
    try:
        content = reading.content(path, reading.DATA_BYTES)
        with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
            _check(opened, path)
            return _deep(content, opened, form) if is_png16(content) else _plain(opened, form)
    except UnidentifiedImageError as error:
        what = "is empty" if not content else f"is not a {', '.join(_FORMATS)} image"
        raise HauberkError(f"cannot read the image {path}: it {what}", "remove it or replace it") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise HauberkError(f"cannot read the image {path}: {reason(error)}", "remove it or replace it") from error


def head(path: Path) -> tuple[tuple[int, int], bool] | None:
    """Width and height of an image file, and whether it has no colours, from its head; None where it cannot be read."""
    try:
        reading.check_regular(path)
        with Image.open(path, formats=_FORMATS) as opened:
            return opened.size, opened.mode in _GREY or opened.mode.startswith("I")
    except (HauberkError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _check(opened: Image.Image, path: Path) -> None:
    if math.prod(opened.size) > reading.PIXELS:
        raise HauberkError(
            f"{path} has {opened.width} x {opened.height} pixels", f"reduce it to at most {reading.PIXELS:,} pixels"
        )
    if getattr(opened, "is_animated", False) and opened.format != "MPO":  # whose first picture is the photograph
        raise HauberkError(f"{path} has {getattr(opened, 'n_frames', 2)} frames", "save one of them as an image")
    if opened.mode not in _KNOWN and not opened.mode.startswith("I;16") and opened.mode != "I":
        raise HauberkError(
            f"{path} has colours of kind {opened.mode}, which need a colour profile",
            "convert it to RGB or grey with the program that made it",
        )


def _plain(opened: Image.Image, form: Form) -> ImageFile:
    """An image of 8 bits a channel."""
    stored, grey, transparent = opened.size, opened.mode in _GREY, False
    turned = opened.getexif().get(_ORIENTATION, 1) in range(2, 9)
    upright = ImageOps.exif_transpose(opened)
    if opened.mode in ("LA", "PA", "RGBA") or "transparency" in opened.info:
        seen = upright.convert("RGBA")
        transparent = int(np.asarray(seen.getchannel("A")).min()) < 255
        if transparent:
            upright = Image.alpha_composite(Image.new("RGBA", seen.size, "black"), seen)
    fitted = _fitted(upright.convert(_MODES[form.channels]), form)
    pixels = np.asarray(fitted).reshape(form.size, form.size, form.channels).transpose(2, 0, 1)
    return ImageFile(pixels, stored, grey, turned, transparent)


def _deep(content: bytes, opened: Image.Image, form: Form) -> ImageFile:
    """An image of 16 bits a channel, in floats of 32 bits, which hold each value exactly."""
    values = read_png16(content, reading.PIXELS)
    stored, grey, transparent = opened.size, values.shape[2] < 3, False
    orientation = opened.getexif().get(_ORIENTATION, 1)
    if values.shape[2] in (2, 4):
        cover, values = values[:, :, -1:], values[:, :, :-1]
        transparent = int(cover.min()) < 65535
        values = np.rint(values * (cover / 65535.0))  # over black
    if form.channels == 1 and values.shape[2] == 3:
        values = np.rint(values @ LUMA)[:, :, None]
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(values, 2, 0)]
    fitted = [_fitted(_upright(plane, orientation), form) for plane in planes]
    pixels = np.stack([np.rint(np.clip(np.asarray(plane), 0.0, 65535.0)).astype(np.uint16) for plane in fitted])
    if len(pixels) < form.channels:
        pixels = np.repeat(pixels, form.channels, axis=0)
    return ImageFile(pixels, stored, grey, orientation in range(2, 9), transparent)


def _upright(plane: Image.Image, orientation: int) -> Image.Image:
    """The plane with an EXIF orientation, turned."""
    exif = plane.getexif()
    exif[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(plane)


def _fitted(image: Image.Image, form: Form) -> Image.Image:
    """The central square, resized."""
    side = max(1, round(form.share * min(image.size)))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((form.size, form.size), Image.Resampling.BICUBIC)
