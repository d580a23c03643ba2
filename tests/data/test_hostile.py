"""Image files that anybody may have made: three formats, within limits, and only files."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hauberk import reading
from hauberk.data import load
from hauberk.errors import HauberkError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images in two classes; returns the place of one of them."""
    for part in ("train", "test"):
        for name in "ab":
            folder = tmp_path / "own" / part / name
            folder.mkdir(parents=True)
            for k in range(3):
                pixels = np.random.default_rng([ord(name), k, len(part)]).integers(0, 256, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    return tmp_path / "own" / "train" / "a" / "0.png"


def read(images: Path) -> None:
    load({"name": "image_folder", "folder": "own", "size": 8}, images.parents[3])


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(ran) print\nshowpage\n"


@pytest.mark.parametrize("kind", ["EPS", "GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_under_the_name_of_a_png(kind: str, images: Path) -> None:
    if kind == "EPS":  # its reader starts another program
        images.write_bytes(EPS)
    else:
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(images, kind)
    with pytest.raises(HauberkError, match="cannot read the image"):
        read(images)


def test_pipes_devices_and_bombs(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(images)
    whole = images.read_bytes()
    images.unlink()
    os.mkfifo(images)
    with pytest.raises(HauberkError, match="is a pipe"):
        read(images)
    images.unlink()
    images.symlink_to("/dev/zero")
    with pytest.raises(HauberkError, match="is a device"):
        read(images)
    images.unlink()
    images.write_bytes(whole)
    monkeypatch.setattr(reading, "PIXELS", 80)
    with pytest.raises(HauberkError, match="9 x 9 pixels"):
        read(images)
