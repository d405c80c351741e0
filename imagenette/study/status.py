"""`imagenette status`: a study as its rows tell it. Reads the database alone."""

from __future__ import annotations

import contextlib
import time

from rich.console import Console

from imagenette.study.show import status_table, watching
from imagenette.study.storage import Patience, find_queue, in_one_line, open_storage, resolve_storage
from imagenette.study.table import how_far

PAUSE = 1.0  # seconds between two looks


def show_status(name: str | None, storage_url: str | None, *, watch: bool) -> None:
    """One study in detail, or every study in a line. InputError if there is no such study."""
    storage = open_storage(resolve_storage(storage_url), create=False)
    console = Console()
    with in_one_line():
        if name is None:
            for study in storage.get_all_studies():
                console.print(f"{study.study_name}: {how_far(find_queue(storage, study.study_name).rows())}")
            return
        queue = find_queue(storage, name)
        if not watch:
            console.print(status_table(name, queue.rows(), objective=queue.objective(), now=time.time()))
            return
    patience = Patience()
    with (
        watching(name, objective=patience(queue.objective), console=console) as view,
        contextlib.suppress(KeyboardInterrupt),
    ):
        while True:
            rows = patience(queue.rows)
            view.update(rows)
            if all(row.ended for row in rows):
                return
            time.sleep(PAUSE)
