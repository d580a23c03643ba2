"""16-bit PNGs at their full depth, against an encoder written from the format's description."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hauberk.data.png16 import SIGNATURE, is_png16, read_png16

MOST = 10**6
CHANNELS = {0: 1, 4: 2, 2: 3, 6: 4}


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def paeth(a: int, b: int, c: int) -> int:
    p = a + b - c
    near = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))
    return near[2]


def filtered(values: np.ndarray, kinds: list[int]) -> bytes:
    """The scanlines of one pass, filtered byte by byte as the specification says."""
    rows, columns, channels = values.shape
    lines = values.astype(">u2").reshape(rows, columns * channels).view(np.uint8).reshape(rows, -1)
    step, said = 2 * channels, b""
    for y in range(rows):
        kind = kinds[y % len(kinds)]
        said += bytes([kind])
        for i, value in enumerate(lines[y].tolist()):
            a = int(lines[y, i - step]) if i >= step else 0
            b = int(lines[y - 1, i]) if y else 0
            c = int(lines[y - 1, i - step]) if y and i >= step else 0
            said += bytes([(value - (0, a, b, (a + b) // 2, paeth(a, b, c))[kind]) % 256])
    return said


def encoded(values: np.ndarray, kinds: list[int], interlaced: bool = False, extra: bytes = b"") -> bytes:
    height, width, channels = values.shape
    colour = next(c for c, n in CHANNELS.items() if n == channels)
    passes = [values]
    if interlaced:
        starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        passes = [values[y::down, x::right] for y, x, down, right in starts]
    lines = b"".join(filtered(p, kinds) for p in passes if p.size)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(interlaced))
    packed = zlib.compress(lines)
    middle = len(packed) // 2  # two IDAT chunks
    parts = chunk(b"IDAT", packed[:middle]) + chunk(b"IDAT", packed[middle:])
    return SIGNATURE + chunk(b"IHDR", head) + extra + parts + chunk(b"IEND", b"")


def values(channels: int, height: int = 9, width: int = 7) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 65536, (height, width, channels), dtype=np.uint16)


@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "adam7"])
@pytest.mark.parametrize("kinds", [[0], [1], [2], [3], [4], [0, 1, 2, 3, 4]], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_kind_under_every_filter(channels: int, kinds: list[int], interlaced: bool) -> None:
    expected = values(channels)
    content = encoded(expected, kinds, interlaced)
    assert is_png16(content)
    assert np.array_equal(read_png16(content, MOST), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (3, 2), (8, 8), (5, 17)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_interlaced(height: int, width: int, channels: int) -> None:
    """Passes of small images are empty."""
    expected = values(channels, height, width)
    assert np.array_equal(read_png16(encoded(expected, [4, 1], True), MOST), expected)


@pytest.mark.parametrize("value", [0x0000, 0x0001, 0x00FF, 0x0100, 0x1234, 0xFF00, 0xFFFF], ids=hex)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_low_bytes_are_kept(value: int, channels: int) -> None:
    expected = np.full((4, 5, channels), value, np.uint16)
    assert np.array_equal(read_png16(encoded(expected, [0, 4]), MOST), expected)


def test_grey_agrees_with_pillow() -> None:
    """The one kind that Pillow reads at full depth, and writes."""
    expected = values(1)
    buffer = io.BytesIO()
    Image.fromarray(expected[:, :, 0]).save(buffer, "PNG")
    assert np.array_equal(read_png16(buffer.getvalue(), MOST), expected)


def damaged() -> dict[str, bytes]:
    good, end = encoded(values(3), [1]), chunk(b"IEND", b"")
    head = struct.pack(">IIBBBBB", 5, 5, 16, 2, 0, 0, 0)
    flipped = bytearray(good)
    flipped[60] ^= 1
    bomb = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    return {
        "cut in the data": good[: len(good) // 2],
        "cut in a chunk's head": good[:40],
        "without its end": good[:-12],
        "an empty body": SIGNATURE + chunk(b"IHDR", head) + end,
        "a flipped bit": bytes(flipped),
        "a wrong sum": good[:-16] + bytes(4) + good[-12:],
        "too few lines": SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0" * 20)) + end,
        "no pixels": SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 16, 2, 0, 0, 0)) + end,
        "a palette": SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 16, 3, 0, 0, 0)) + end,
        "no zlib stream": SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", b"abc") + end,
        "a transparent colour": encoded(values(3), [0], extra=chunk(b"tRNS", b"\0\1\0\1\0\1")),
        "too large": SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 2000, 2000, 16, 2, 0, 0, 0)) + end,
        "an unknown filter": bomb + chunk(b"IDAT", zlib.compress(b"\x09" * 100)) + end,
    }  # fmt: skip


MESSAGES = {
    "a wrong sum": "the sum of its chunk IDAT is wrong",
    "too few lines": "it is truncated",
    "too large": "2000 x 2000 pixels are more than",
    "a transparent colour": "stands for transparent",
    "cut in a chunk's head": "it is truncated",
    "no pixels": "not a PNG of 16 bits",
    "a palette": "not a PNG of 16 bits",
}


@pytest.mark.parametrize("name", damaged())
def test_what_is_damaged_is_refused(name: str) -> None:
    with pytest.raises((ValueError, OSError, SyntaxError), match=MESSAGES.get(name, ".")):
        read_png16(damaged()[name], MOST)


def test_more_data_than_pixels_is_never_inflated() -> None:
    """A small file that would inflate to a hundred megabytes."""
    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    content = SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**8))) + chunk(b"IEND", b"")
    assert read_png16(content, MOST).shape == (4, 4, 3)


@pytest.mark.parametrize("content", [b"", SIGNATURE, b"GIF89a", SIGNATURE + b"\0" * 40])
def test_other_files_are_no_16_bit_png(content: bytes) -> None:
    assert not is_png16(content)
