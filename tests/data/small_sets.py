"""Small real data sets, made by PIL and packed by the standard library."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

from imagenette.errors import InputError

ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
Files = dict[str, bytes]


def picture(seed: int, size: tuple[int, int] = (24, 16), mode: str = "RGB") -> Image.Image:
    """A smooth random picture of (width, height)."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return rough.resize(size, Image.Resampling.BICUBIC).convert(mode)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned(image: Image.Image, kind: str = "PNG", place: int = 6, **options: object) -> bytes:
    """Shown as `image`, stored as EXIF's orientation `place` says: 6 is a phone held upright."""
    exif = Image.Exif()
    exif[0x0112] = place
    back = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}
    back |= {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180}
    back |= {4: Image.Transpose.FLIP_TOP_BOTTOM, 8: Image.Transpose.ROTATE_270}
    return encode(image.transpose(back[place]), kind, exif=exif, **options)


def small_set(
    classes: tuple[str, ...] = ("cat", "dog"), train: int = 3, val: int = 2, **shape: object
) -> Files:
    """`train` + `val` JPEGs in each class."""
    return {
        f"{split}/{label}/{index}.JPEG": encode(picture(crc32(f"{split}{label}{index}".encode()), **shape))
        for split, count in (("train", train), ("val", val))
        for label in classes
        for index in range(count)
    }


def pack(files: Files, path: Path, top: str = "", folders: tuple[str, ...] = ()) -> Path:
    """Write `files` (and empty `folders`) as what the suffix of `path` says; a folder without one."""
    if not path.suffix:
        for folder in folders:
            (path / top / folder).mkdir(parents=True)
        for name, data in files.items():
            (path / top / name).parent.mkdir(parents=True, exist_ok=True)
            (path / top / name).write_bytes(data)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for folder in folders:
                archive.mkdir(top + folder)
            for name, data in files.items():
                archive.writestr(top + name, data)
    else:
        kind = {".tar": "", ".tgz": "gz", ".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".zst": ""}[path.suffix]
        with tarfile.open(path, f"w:{kind}") as archive:
            for folder in folders:
                info = tarfile.TarInfo(top + folder)
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            for name, data in files.items():
                add(archive, top + name, data)
        if path.suffix == ".zst":
            path.write_bytes(import_module(ZSTD).compress(path.read_bytes()))
    return path


def add(
    archive: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    archive.addfile(info, io.BytesIO(data))


def refusal(call: Callable[[], object]) -> str | None:
    """The message with which `call` refuses its input, None if it does not; any other error passes."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


def left_behind(home: Path) -> list[str]:
    """Temporary files anywhere under a home; locks stay for good."""
    found = [name for _, folders, files in os.walk(home) for name in folders + files]
    return [name for name in found if name.startswith(".") and not name.endswith(".lock")]
