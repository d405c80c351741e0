"""Artifacts fetched from the server. A missing one is an InputError; a server that fails keeps its own
error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from imagenette.errors import InputError
from imagenette.files import scratch

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def fetched(client: MlflowClient, address: str, *, only: Sequence[str] = ()) -> Iterator[Path]:
    """A copy of the file or folder at an artifact address, gone afterwards. InputError if it is not there.

    only: of a folder, these files alone. Not by `runs:/...`: for those MLflow (3.17) takes an outage for a
    missing file.
    """
    with scratch() as temp:
        for name in only:
            _download(client, f"{address}/{name}", temp)
        yield temp if only else _download(client, address, temp)


def _download(client: MlflowClient, address: str, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    try:
        local = download_artifacts(
            artifact_uri=address, dst_path=str(folder), tracking_uri=client.tracking_uri
        )
        path = Path(local)
    except Exception as error:
        if not _is_missing(error):
            raise
        path = folder / "missing"
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{address.rsplit('/', 1)[-1]} is not there (deleted?)")
    return path


def has_file(client: MlflowClient, folder: str | None, name: str) -> bool:
    """Whether an artifact folder holds a file of that name."""
    from mlflow.artifacts import list_artifacts

    found = list_artifacts(artifact_uri=folder, tracking_uri=client.tracking_uri) if folder else []
    return any(item.path.rsplit("/", 1)[-1] == name for item in found)


def _is_missing(error: BaseException) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status == 404 or isinstance(error, FileNotFoundError) or "No such artifact" in str(error)
