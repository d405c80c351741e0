"""A backup's file: a tar of plain files whose last member lists them all with sizes and checksums.

What is cut short, damaged or not ours is refused, by name."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from imagenette.errors import InputError

LIST = "manifest.json"
_BLOCK = 2**20
_NAMES = re.compile(r"(mlflow|optuna)\.(dump|db)|artifacts/.+")


class Packer:
    """Writes one, inside a with block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, dict[str, object]] = {}

    def __enter__(self) -> Self:
        self._file = self._path.open("xb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, path: Path) -> None:
        """The bytes that it has now; one that has gone meanwhile is left out."""
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            size = os.fstat(stream.fileno()).st_size
            hashed = _Hashed(stream)
            try:
                self._tar.addfile(_member(name, size), hashed)
            except OSError as error:
                if error.errno is None:  # tarfile's: fewer bytes than there were
                    raise InputError(f"{path} grew shorter while it was copied: try again") from None
                raise
        self._files[name] = {"bytes": size, "sha256": hashed.sha256.hexdigest()}

    def close(self, about: Mapping[str, object]) -> None:
        """List what is in it, and put it on the disk."""
        content = {**about, "files": self._files}
        body = json.dumps({"content": content, "sha256": _digest(content)}, indent=1).encode()
        listed = _member(LIST, len(body))
        self._tar.addfile(listed, io.BytesIO(body))
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())


def unpack(path: Path, into: Path) -> dict[str, Any]:
    """Every file into the folder, and what the list says of the whole. InputError in one line for damage."""
    found: dict[str, dict[str, object]] = {}
    content: dict[str, Any] | None = None
    last = "nothing"
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|", bufsize=_BLOCK) as tar:
            for info in tar:
                stream = tar.extractfile(info) if info.isreg() else None
                if stream is None or content is not None:
                    raise InputError(f"{path}: {info.name!r} does not belong into a backup")
                if info.name == LIST:
                    content = _read_list(path, stream.read(2**30))
                    continue
                if info.name in found or not _is_safe(info.name):
                    raise InputError(f"{path}: {info.name!r} does not belong into a backup")
                found[info.name] = _copy(stream, into / info.name)
                last = info.name
    except tarfile.TarError as error:
        raise InputError(f"{path} is damaged or not a backup, after {last}: {error}") from None
    except OSError as error:
        if error.errno is None:
            raise InputError(f"{path} is damaged or cut short, after {last}") from None
        raise
    if content is None:
        raise InputError(f"{path} is damaged or cut short, after {last}: its list of files is missing")
    listed = content["files"]
    for name in sorted({*found, *listed}):
        if found.get(name) != listed.get(name):
            what = "is damaged" if name in found and name in listed else "is missing or too many"
            raise InputError(f"{path}: {name} in it {what}")
    return content


class _Hashed:
    """What is read through it is hashed."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.sha256.update(data)
        return data


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


def _read_list(path: Path, body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
        content: dict[str, Any] = said["content"]
        right = said["sha256"] == _digest(content)
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise InputError(f"{path}: its list of files, {LIST}, is damaged")
    return content


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return bool(_NAMES.fullmatch(name)) and not {"", ".", ".."} & set(parts) and "\\" not in name


def _copy(stream: IO[bytes], to: Path) -> dict[str, object]:
    to.parent.mkdir(parents=True, exist_ok=True)
    hashed, size = _Hashed(stream), 0
    with to.open("xb") as file:
        while block := hashed.read(_BLOCK):
            size += file.write(block)
    return {"bytes": size, "sha256": hashed.sha256.hexdigest()}
