"""The second pass over a source: every image decoded once, by all cores, into plain .npy files."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from imagenette.data.archive import members
from imagenette.data.images import decode
from imagenette.data.scan import Scan
from imagenette.errors import InputError, shown
from imagenette.processes import cores

Pixels = npt.NDArray[np.uint8]
SHOWN = 20  # bad pictures that a message names


class BadPictures(InputError):
    """Pictures that cannot be read, in one line that names them."""

    def __init__(self, source: Path, bad: Mapping[str, str]) -> None:
        """bad: name inside the source -> why."""
        self.bad = bad
        super().__init__(f"data={source}: {told(bad)}; bad_pictures=skip leaves them out")


def told(bad: Mapping[str, str]) -> str:
    """`3 pictures cannot be read: ...`: the first ones with the reason, the others as a number."""
    lines = [bad[name] for name in sorted(bad)]
    count = f"{len(bad)} pictures cannot be read: " if len(bad) > 1 else ""
    more = [f"and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
    return count + "; ".join(lines[:SHOWN] + more)


def decode_into(folder: Path, scan: Scan, side: int, *, progress: bool = False) -> None:
    """Write `train-images.npy`, `train-labels.npy`, `train-sizes.npy` and the same of `test`, flushed to
    the disk. Raises BadPictures with all damaged ones, OSError for a full disk."""
    for split, entries in (("train", scan.train), ("test", scan.test)):
        order = {label: index for index, label in enumerate(scan.classes)}
        labels = np.array([order[entry.name.split("/")[1]] for entry in entries], np.int64)
        _save(folder / f"{split}-labels.npy", labels)
        _save(folder / f"{split}-sizes.npy", np.array([entry.size for entry in entries], np.int32))
    with (
        _rows(folder / "train-images.npy", len(scan.train), side) as train,
        _rows(folder / "test-images.npy", len(scan.test), side) as test,
    ):
        places = {e.member: (train, row) for row, e in enumerate(scan.train)}
        places |= {e.member: (test, row) for row, e in enumerate(scan.test)}

        def write(name: str, image: Pixels) -> None:
            rows, row = places[name]
            rows.write(row, image)

        if bad := _decode_all(scan, side, write, progress):
            raise BadPictures(scan.path, bad)


def find_damage(scan: Scan, *, progress: bool = False) -> dict[str, str]:
    """Decode everything and keep nothing: name inside the source -> why its pixels cannot be read."""
    return _decode_all(scan, 1, lambda name, image: None, progress)


def _decode_all(
    scan: Scan, side: int, write: Callable[[str, Pixels], None], progress: bool
) -> dict[str, str]:
    path = scan.path
    checksums = {entry.member: entry.sha256 for entry in (*scan.train, *scan.test)}
    bad: dict[str, str] = {}

    def work(name: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != checksums[name]:
            raise InputError(f"data={path}: {shown(name)} changed while it was read")
        try:
            image = decode(data, shown(name), side)
        except InputError as error:
            bad[name] = str(error)
        else:
            write(name, image)

    threads = cores()
    pending: deque[Future[None]] = deque()
    done = 0
    with (
        ThreadPoolExecutor(threads) as pool,  # PIL decodes and resizes without the GIL
        tqdm(desc=f"decoding {path.name}", unit="img", total=len(checksums), disable=not progress) as bar,
    ):

        def finish(keep: int) -> None:
            nonlocal done
            while len(pending) > keep:
                pending.popleft().result()
                done += 1
                bar.update()

        try:
            for member in members(path, checksums.__contains__):
                if member.data is not None:
                    pending.append(pool.submit(work, member.name, member.data))
                    finish(keep=8 * threads)  # so many files in memory, not the archive
            finish(keep=0)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if done != len(checksums):
        raise InputError(f"data={path}: changed while it was read: {len(checksums) - done} images are gone")
    return bad


class _Rows:
    """The images of one split in a file, written in any order from any thread. Written, not mapped: a
    full disk is then an OSError, where a mapped page would kill the process."""

    def __init__(self, descriptor: int, start: int, row_bytes: int) -> None:
        self._descriptor, self._start, self._row_bytes = descriptor, start, row_bytes

    def write(self, row: int, image: Pixels) -> None:
        written = os.pwrite(self._descriptor, image.tobytes(), self._start + row * self._row_bytes)
        if written != self._row_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _rows(file: Path, count: int, side: int) -> Iterator[_Rows]:
    with file.open("wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
        np.lib.format.write_array_header_1_0(out, header)
        out.flush()
        yield _Rows(out.fileno(), out.tell(), side * side * 3)
        os.fsync(out.fileno())


def _save(file: Path, array: npt.NDArray[np.generic]) -> None:
    with file.open("wb") as out:
        np.save(out, array)
        out.flush()
        os.fsync(out.fileno())
