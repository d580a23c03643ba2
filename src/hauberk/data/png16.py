"""PNG images of 16 bits a channel at their full depth.

Pillow reads grey ones at full depth and cuts all others to the high byte of each value.  The filters of PNG work on
bytes and never mix the two bytes of a value, so a 16-bit image is two 8-bit images of the same kind: one of the high
bytes and one of the low ones, under the same filters.  Both are put together here as 8-bit PNGs, which Pillow decodes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type: grey, RGB, grey + alpha, RGBA
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def is_png16(content: bytes) -> bool:
    """Whether it begins as a PNG of 16 bits a channel does."""
    return content.startswith(SIGNATURE) and content[12:16] == b"IHDR" and content[24:25] == b"\x10"


def read_png16(content: bytes, most_pixels: int) -> np.ndarray:
    """The values of a 16-bit PNG.

    Args:
        content: the file.
        most_pixels: larger images are refused before they are decompressed.

    Returns:
        uint16 array, shape (H, W, C) with C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).

    Raises:
        ValueError: if it is damaged or truncated, too large, or has one colour that stands for transparent (tRNS).
    """
    chunks = list(_chunks(content))
    if not chunks or chunks[0][0] != b"IHDR" or chunks[-1][0] != b"IEND" or len(chunks[0][1]) != 13:
        raise ValueError("a PNG file begins with IHDR and ends with IEND")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth != 16 or colour not in _CHANNELS or compression or filtering or interlace > 1 or not width or not height:
        raise ValueError("not a PNG of 16 bits a channel")
    if width * height > most_pixels:
        raise ValueError(f"{width} x {height} pixels are more than {most_pixels}")
    if any(name == b"tRNS" for name, _ in chunks):
        raise ValueError("one of its colours stands for transparent")
    passes = _passes(width, height, interlace)
    channels = _CHANNELS[colour]
    size = sum(rows * (1 + 2 * channels * columns) for rows, columns in passes)
    lines = _inflate(b"".join(data for name, data in chunks if name == b"IDAT"), size)
    high, low = bytearray(), bytearray()
    at = 0
    for rows, columns in passes:
        line = 1 + 2 * channels * columns
        block = np.frombuffer(lines, np.uint8, rows * line, at).reshape(rows, line)
        for target, first in ((high, 1), (low, 2)):
            target += np.hstack([block[:, :1], block[:, first::2]]).tobytes()
        at += rows * line
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlace)
    tall, small = (_decoded(head, bytes(part), (height, width, channels)) for part in (high, low))
    return np.asarray(tall.astype(np.uint16) << 8 | small)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and data of each chunk up to IEND, with its sum checked."""
    at = len(SIGNATURE)
    while at < len(content):
        if at + 12 > len(content):
            raise ValueError("it is truncated")
        (length,) = struct.unpack_from(">I", content, at)
        name, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        end = content[at + 8 + length : at + 12 + length]
        if len(end) != 4:
            raise ValueError("it is truncated")
        if zlib.crc32(name + data) != struct.unpack(">I", end)[0]:
            raise ValueError(f"the sum of its chunk {name.decode('latin1')} is wrong")
        yield name, data
        if name == b"IEND":
            return
        at += 12 + length
    raise ValueError("it is truncated")


def _passes(width: int, height: int, interlace: int) -> list[tuple[int, int]]:
    """Rows and columns of each image that is filtered by itself: one, or the seven of Adam7 without empty ones."""
    if not interlace:
        return [(height, width)]
    sizes = [(-(-(height - y) // down), -(-(width - x) // right)) for x, y, right, down in _ADAM7]
    return [(rows, columns) for rows, columns in sizes if rows > 0 and columns > 0]


def _inflate(data: bytes, size: int) -> bytes:
    """Exactly ``size`` bytes, and never more than that in memory."""
    try:
        lines = zlib.decompressobj().decompress(data, size)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(lines) != size:
        raise ValueError("it is truncated")
    return lines


def _decoded(head: bytes, lines: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The 8-bit image with these filtered lines."""
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 0)), (b"IEND", b""))
    made = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    with Image.open(io.BytesIO(SIGNATURE + made)) as opened:
        return np.asarray(opened).reshape(shape)
