"""Whether a run's models may leave its folder: what the server and the registry answer. Removes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from imagenette.errors import RunError
from imagenette.tracking.client import opened, pages, resolve_uri
from imagenette.tracking.model import DIGEST, digest_of, models_of
from imagenette.tracking.outbox import Card, Outbox
from imagenette.tracking.runs import get_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def why_models_stay(outbox: Outbox, models: Sequence[Path], tracking_uri: str | None) -> str:
    """Why these model folders must stay; empty where the server has each of them whole."""
    card = outbox.card
    if outbox.lacking or card is None or card.run_id is None:
        return f"its models stay: {outbox.lacking} records are not sent, see `imagenette sync`"
    if all(file.stat().st_nlink > 1 for model in models for file in model.glob("weights.*")):
        return "its models are the store's own files"
    uri = resolve_uri(tracking_uri or card.tracking_uri)
    try:
        with opened(uri, advice="its models stay") as client:
            return _why(client, card, outbox.output, models)
    except RunError as error:
        return str(error)


def _why(client: MlflowClient, card: Card, output: Path, models: Sequence[Path]) -> str:
    assert card.run_id is not None
    run = get_run(client, card.run_id)
    if run is None or run.info.lifecycle_stage != "active":
        return f"its models stay: run {card.run_id} is not on the server"
    lacking = [model.name for model in models if not _is_stored(client, run, model)]
    if lacking:
        return f"its models stay: the server does not have {lacking[0]} whole"
    for version in pages(lambda token: client.search_model_versions(page_token=token)):
        source = urlsplit(version.source or "")
        if source.scheme in ("", "file") and Path(unquote(source.path)).is_relative_to(output):
            return f"its models stay: {version.name} version {version.version} is read from here"
    return ""


def _is_stored(client: MlflowClient, run: Run, path: Path) -> bool:
    """Whether the server has the model in this folder: READY, of this content, and each file in its size."""
    from mlflow.artifacts import list_artifacts

    digest = digest_of(path)
    for model in models_of(client, run, path.name):
        if model.status != "READY" or model.tags.get(DIGEST) != digest:
            continue
        stored: dict[str, int | None] = {}
        for folder in [path, *(entry for entry in path.rglob("*") if entry.is_dir())]:
            inside = folder.relative_to(path).as_posix()
            address = model.artifact_location + f"/{inside}" * (inside != ".")
            found = list_artifacts(artifact_uri=address, tracking_uri=client.tracking_uri)
            stored |= {f"{inside}/{item.path.rsplit('/', 1)[-1]}": item.file_size for item in found}
        ours = {
            f"{file.parent.relative_to(path).as_posix()}/{file.name}": file.stat().st_size
            for file in path.rglob("*")
            if file.is_file() and file.name != "MLmodel" and "__pycache__" not in file.parts
        }
        if ours.items() <= stored.items() and "./MLmodel" in stored:
            return True
    return False
