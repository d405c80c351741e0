"""One image: header checked, decoded to upright RGB, squashed to a square. Knows bytes, not archives.

The header is read by one chosen decoder, found by the first bytes and never by the file's name, so
nothing outside these formats is ever started and no pixel is allocated before its size is known.
Only what pixels depend on can make an image bad: not its profile, its texts, its thumbnails.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import numpy.typing as npt
from PIL import Image, features
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..errors import InputError, as_line  # relative: this file travels inside saved models, see export.py

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
"""Taken for images unopened; any other file is one if it begins as one, see `is_image_head`."""
_COPIES = ("~", ".bak", ".orig", ".tmp", ".part", ".crdownload")
"""Endings of an editor's older state, and of half a download."""

HEAD = 32
"""First bytes of a file by which an image is known."""
FORMATS = "JPEG, PNG, GIF, BMP, WebP, TIFF"
if features.check("avif"):
    FORMATS += ", AVIF"

MAX_PIXELS = 100_000_000
"""A 3 KB JPEG may claim 65500 x 65500 pixels: 13 GB once decoded."""

MAX_SCANS = 100
"""A progressive JPEG is decoded once over for each of its scans, of which a few bytes make one; encoders
write about ten. Of the largest pictures 12 are read."""


class _Jpeg(JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Not wanted: Pillow reads every tag for it, and warns of each that is damaged."""


# The classes are called directly: `Image.open` would warn from its own global cap first, and warning
# filters are shared by all threads. MPO files (two JPEGs in one) thereby read as their first picture.
_DECODERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", _Jpeg),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"GIF87a", GifImageFile),
    (b"GIF89a", GifImageFile),
    (b"BM", BmpImageFile),
    (b"II*\0", TiffImageFile),
    (b"MM\0*", TiffImageFile),
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what makes the image upright. Of a TIFF, Pillow turns the pixels itself."""


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken as an image, in any case: `x.JPEG`, `x.png`."""
    return name.lower().endswith(SUFFIXES)


def is_image_head(name: str, head: bytes) -> bool:
    """Whether a file of another name is an image by its first `HEAD` bytes. BMP and TIFF are known by their
    suffix alone: two letters begin many a text, and a camera's raw files begin as TIFF does."""
    return _decoder(head) not in {None, BmpImageFile, TiffImageFile} and not name.lower().endswith(_COPIES)


def is_image(data: bytes) -> bool:
    """Whether bytes begin as an image does."""
    return _decoder(data[:HEAD]) is not None


def read_header(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int, bool]:
    """(height, width, turned) of the upright image as the header claims, px, no pixel decoded; turned: stored
    otherwise than shown. Raises InputError."""
    image = _open(data, name, max_pixels)
    place = _orientation(image)
    height, width = image.size if place >= 5 else image.size[::-1]
    return height, width, place != 1


def decode(
    data: bytes, name: str, side: int | None = None, *, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """[height, width, 3] RGB, upright by its EXIF orientation; with `side`, squashed to [side, side, 3].
    Raises InputError.

    An image that already is `side` x `side` is returned as decoded, bit for bit. Alpha is dropped: a
    transparent pixel has the colour that is stored under it.
    """
    image = _open(data, name, max_pixels)
    if isinstance(image, _Jpeg):
        scans, most = data.count(b"\xff\xda"), 12 * max_pixels // (image.width * image.height)
        if scans > min(MAX_SCANS, most):
            raise InputError(f"{name}: the image is stored in {scans} scans, too many to decode")
    return upright(image, name, side)


def upright(image: Image.Image, name: str, side: int | None = None) -> npt.NDArray[np.uint8]:
    """The same for an image that is open."""
    turn = _UPRIGHT.get(_orientation(image))
    try:
        image.load()
        rgb = _to_rgb(image)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except Exception as error:  # a decoder fed damaged bytes raises OSError, SyntaxError, ValueError, ...
        raise InputError(f"{name}: the image is damaged: {as_line(error)}") from None
    if turn is not None:
        rgb = rgb.transpose(turn)
    if side is not None:
        rgb = squash(rgb, side)
    return np.array(rgb, dtype=np.uint8)


def squash(image: Image.Image, side: int) -> Image.Image:
    """Resize to side x side, aspect ratio not kept. PIL's bilinear filter widens as it shrinks
    (antialiasing), like torchvision's."""
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)


def _decoder(head: bytes) -> type[ImageFile] | None:
    if head.startswith(b"RIFF"):
        return WebPImageFile if head[8:12] == b"WEBP" else None
    if head[4:8] == b"ftyp":  # the brands of its container follow
        return AvifImageFile if b"avif" in head[8:HEAD] and "AVIF" in FORMATS else None
    return next((kind for magic, kind in _DECODERS if head.startswith(magic)), None)


def _open(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> ImageFile:
    if not data:
        raise InputError(f"{name}: the file is empty (0 bytes), not an image")
    decoder = _decoder(data)
    if decoder is None:
        raise InputError(f"{name}: the content is not an image ({FORMATS})")
    if decoder is WebPImageFile:  # its decoder allocates the canvas as soon as it is made
        _check_pixels(*_webp_size(data), name, max_pixels)
    try:
        image = decoder(io.BytesIO(_needed(data) if decoder is PngImageFile else data))
    except Exception as error:  # plugins raise SyntaxError, struct.error, KeyError, ... on a bad header
        raise InputError(f"{name}: the image header is damaged: {as_line(error)}") from None
    _check_pixels(*image.size, name, max_pixels)
    return image


def _needed(png: bytes) -> bytes:
    """A PNG without the chunks that no pixel depends on. Pillow refuses it for the size of its profile or
    texts, or a flaw in them; viewers pass over both."""
    kept, at = [png[:8]], 8
    while at + 8 <= len(png):
        start, kind = at, png[at + 4 : at + 8]
        at += 12 + int.from_bytes(png[at : at + 4], "big")
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf"):
            kept.append(png[start:at])
    return b"".join(kept)


def _check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1 or width * height > max_pixels:
        limit = max_pixels // 1_000_000
        raise InputError(
            f"{name}: the header claims {width} x {height} pixels; 1 to {limit} million are read"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) from a WebP's first chunk, (0, 0) where there is none."""
    head = data[:30].ljust(30, b"\0")
    if head[8:16] == b"WEBPVP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[8:16] == b"WEBPVP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[8:16] == b"WEBPVP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 to 8; 1 is upright, and where none is said."""
    tiff = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    order = ">" if tiff.startswith(b"MM") else "<"
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (tags,) = struct.unpack_from(f"{order}H", tiff, at)
        for tag in range(tags):
            found = struct.unpack_from(f"{order}HHIH", tiff, at + 2 + 12 * tag)
            if found[:3] == (0x0112, 3, 1):  # one 16-bit number
                return found[3] if found[3] in _UPRIGHT else 1
    except struct.error:
        pass
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):  # PIL would clip 16 bits at 255; keep the upper eight
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:
        raise InputError(f"32-bit pixels (mode {image.mode}) have no fixed range; 8 or 16 bits are read")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB would warn
    return image.convert("RGB")  # of a CMYK JPEG, PIL's decoder has already undone Adobe's inversion
