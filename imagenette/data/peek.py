"""A few test pictures of a data set by their names, for whoever shows them. Fetches and writes nothing, and
never gives pictures of another data set than the one that is asked for."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from imagenette.data import cache
from imagenette.data.archive import members
from imagenette.data.dataset import Split
from imagenette.data.digits import open_digits
from imagenette.data.images import decode
from imagenette.data.scan import scan
from imagenette.data.sources import PUBLISHED
from imagenette.errors import InputError, RunError, shown
from imagenette.files import expanded

SIDE = 224


class NoPicturesError(InputError):
    """They are not on this machine; the message says where they were looked for."""


def peek(names: Collection[str], digest: str, sources: Sequence[str]) -> dict[str, npt.NDArray[np.uint8]]:
    """Name (`val/n01440764/x.JPEG`) -> uint8 [side, side, 3], squashed to a square as networks see it.

    digest: the data set's. sources: what `data` may name, the likeliest first; not asked where the set was
    decoded before. NoPicturesError where none of them has that set.
    """
    missing = []
    for source in sources:
        try:
            return _peek(set(names), digest, source)
        except (InputError, RunError) as error:
            missing.append(str(error))
    raise NoPicturesError(f"the pictures of data {digest[:8]} are not here: {'; '.join(missing)}")


def _peek(names: set[str], digest: str, source: str) -> dict[str, npt.NDArray[np.uint8]]:
    home = cache.home_folder()
    if stored := cache.recall_digest(home, digest):
        return _rows(stored.test, names)
    if source == "digits" and (digits := open_digits()).digest == digest:
        return _rows(digits.test, names)
    path = home / "downloads" / PUBLISHED[source].file if source in PUBLISHED else expanded(source)
    if not source or not path.exists():
        raise InputError(f"data={source}: there is no {path}")
    scanned = scan(path, progress=sys.stderr.isatty())
    if scanned.digest != digest:
        raise InputError(f"data={source} is other data, {scanned.digest[:8]}")
    place = {entry.member: entry.name for entry in scanned.test if entry.name in names}
    found = ((place[m.name], m.data) for m in members(path, place.__contains__) if m.data is not None)
    return {name: decode(data, shown(name), SIDE) for name, data in found}


def _rows(split: Split, names: set[str]) -> dict[str, npt.NDArray[np.uint8]]:
    return {name: split.images[row] for row, name in enumerate(split.names) if name in names}
