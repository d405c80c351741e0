"""What a stranger's picture must pass before a decoder sees it: no few bytes may ask PIL and its libraries
for long loops or large allocations."""

from __future__ import annotations

import re
import struct

from imagenette.data.images import read_header
from imagenette.errors import InputError

_MARKERS = 20_000
"""JPEG segments or PNG chunks: PIL walks them in Python, at microseconds each."""
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xff]")


def inspect(data: bytes, name: str, *, max_pixels: int) -> int:
    """How many pixels the picture claims. Raises InputError for what will not be decoded here; takes some
    milliseconds a megabyte."""
    if data[:4] in (b"II*\0", b"MM\0*"):  # libtiff allocates by tile and strip, whatever the picture's size
        raise InputError(f"{name}: TIFF is not taken here; JPEG, PNG, BMP or WebP is")
    if data.startswith(b"GIF8") or data[4:8] == b"ftyp":  # frames as large as they like
        raise InputError(f"{name}: GIF and AVIF are not taken here; JPEG, PNG, BMP or WebP is")
    if data.startswith(b"\xff\xd8") and _more_markers(data):
        raise InputError(f"{name}: the image header is damaged: too many segments")
    if data.startswith(b"\x89PNG") and _more_chunks(data):
        raise InputError(f"{name}: the image header is damaged: too many chunks")
    if data.startswith(b"BM") and data[30:34] in (struct.pack("<I", 1), struct.pack("<I", 2)):
        raise InputError(f"{name}: run-length encoded BMP is not taken here")
    height, width, _ = read_header(data, name, max_pixels=max_pixels)
    return height * width


def _more_markers(data: bytes) -> bool:
    if data.count(b"\xff\xff") > _MARKERS:  # fill bytes: one by one, for PIL
        return True
    return any(count >= _MARKERS for count, _ in enumerate(_JPEG_MARKER.finditer(data)))


def _more_chunks(data: bytes) -> bool:
    at, chunks = 8, 0
    while at + 8 <= len(data):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        chunks += 1
        if chunks > _MARKERS:
            return True
    return False
