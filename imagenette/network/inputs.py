"""What a caller hands a saved model, taken apart picture by picture: paths, folders, files as bytes or base64
text, PIL pictures, uint8 pixels, and lists, arrays and tables of these. Refuses the rest in one line.

Travels inside saved models (see `imagenette.network.export`).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..data.images import is_image, upright
from ..data.prepare import Pixels, prepare, resize
from ..data.walk import walk
from ..errors import InputError, shown

ALLOWED = (
    "a path, a folder, a picture file as bytes or base64 text, a PIL picture, uint8 pixels [h, w, 3] or "
    "[n, h, w, 3], or a list, an array or a table of these"
)
_SERVER = "__pyfunc_model_path__"
"""MLflow's model server sets this variable (3.17). Its clients must not have the server's files opened."""


def pictures(data: Any) -> Iterator[tuple[str, Any]]:
    """(name, picture) one after the other, folders and lists taken apart: what `seen` takes. The name is the
    file's path, or `image 3`. InputError for what is no picture, or none at all."""
    number = 0
    for number, item in enumerate(_each(data), 1):
        yield (str(item) if isinstance(item, Path) else f"image {number}"), item
    if number == 0:
        raise InputError(f"no picture: allowed are {ALLOWED}")


def seen(item: Any, name: str, *, side: int, size: int) -> Pixels:
    """uint8 [size, size, 3]: the picture as the network sees it, as every test image was prepared."""
    if isinstance(item, str):
        item = _content(item, name)
    if isinstance(item, Path):
        try:
            item = item.read_bytes()
        except OSError as error:
            raise InputError(f"{shown(name)}: {(error.strerror or str(error)).lower()}") from None
    if isinstance(item, bytes | bytearray | memoryview):
        return prepare(bytes(item), shown(name), side=side, size=size)
    if isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim == 3 and item.shape[2] == 3:
        item = Image.fromarray(item)
    if isinstance(item, Image.Image):
        return resize(torch.from_numpy(upright(item, name, side)), size)
    what = f"{item.dtype} {list(item.shape)}" if hasattr(item, "dtype") else type(item).__name__
    raise InputError(f"{name}: {what} is no picture; allowed are {ALLOWED}")


def index_of(data: Any, names: list[str]) -> pd.Index | None:
    """What the rows of the answer are called: as a table's own rows, or as the files."""
    if isinstance(data, pd.DataFrame | pd.Series) and len(data) == len(names):
        return data.index
    return None if any(name.startswith("image ") for name in names) else pd.Index(names)


def _each(data: Any) -> Iterator[Any]:
    if isinstance(data, pd.DataFrame | Mapping):
        yield from _each(_column(data))
    elif isinstance(data, list | tuple | pd.Series):
        for item in data:
            yield from _each(item)
    elif isinstance(data, np.ndarray) and data.dtype.kind in "OSU":
        yield from _each(data.ravel().tolist())
    elif isinstance(data, np.ndarray) and data.ndim == 4:
        yield from data
    elif isinstance(data, str | os.PathLike) and _SERVER not in os.environ and not _encoded(data):
        yield from _files(Path(data))
    else:
        yield data


def _column(table: Any) -> Any:
    names = list(table.keys())
    if "image" in names or len(names) == 1:
        return table["image" if "image" in names else names[0]]
    listed = ", ".join(map(str, names)) or "none"
    raise InputError(f"a table with the columns {listed}: allowed are a single column, or one named image")


def _files(path: Path) -> Iterator[Any]:
    """A file; or every picture of a folder and below, sorted, by the rule for data sets."""
    try:
        folder = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):  # also a name that is too long, or has a null byte in it
        start = str(path) if len(str(path)) <= 80 else f"{str(path)[:80]}..."
        raise InputError(f"{shown(start)}: no such file or folder, and no picture in base64") from None
    if not folder:
        yield path
        return

    def refuse(why: str) -> None:
        raise InputError(f"{shown(path)}: {why}")

    found = sorted(path / entry.name for entry in walk(path, refuse) if entry.kind == "picture")
    if not found:
        raise InputError(f"{shown(path)}: no picture in this folder or below")
    yield from found


def _encoded(data: str | os.PathLike[str]) -> bool:
    """Whether a text is a picture in base64. A JPEG's begins with `/9j/`, as a path might."""
    try:
        return isinstance(data, str) and is_image(_decoded(data))
    except (binascii.Error, ValueError):
        return False


def _content(text: str, name: str) -> bytes:
    try:
        return _decoded(text)
    except (binascii.Error, ValueError):
        raise InputError(f"{name}: neither bytes nor base64") from None


def _decoded(text: str) -> bytes:
    """Base64, also with line breaks, also as a page's `data:image/png;base64,...`."""
    return base64.b64decode(re.sub(r"^data:[\w/+.;=-]*,|\s", "", text), validate=True)
