"""The run that `mlflow run` made for a command that trains nothing: it says what came of it, and no fluent
call adopts it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imagenette.errors import InputError, RunError
from imagenette.tracking.deliver import set_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def launched(client: MlflowClient, role: str) -> Iterator[Callable[[str], None]]:
    """Gives a function that puts words into that run; an InputError or RunError inside is put there too."""
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)

    def tell(words: str) -> None:
        if run_id:
            set_tags(client, run_id, {"role": role, "mlflow.note.content": words})

    try:
        yield tell
    except (InputError, RunError) as error:
        tell(str(error))
        raise
