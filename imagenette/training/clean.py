"""What of finished runs' folders lies somewhere else too, or is of no more use: told, and removed when asked.

Never taken: anything of a run that goes on or may (a resume needs its checkpoints), or that a process holds;
models while a record is not on the server, that the server does not hold whole, or that a registered version
is read from. Tables, figures, outboxes and results stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imagenette.errors import InputError, shown
from imagenette.tracking.outbox import Outbox
from imagenette.tracking.stored import why_models_stay
from imagenette.tracking.sync import find_outputs
from imagenette.training.job import Result


@dataclass
class Spare:
    """What one run's folder can do without."""

    output: Path
    files: list[Path] = field(default_factory=list)
    kept: str = ""
    """Why the rest stays, where it is more than a few kilobytes."""

    @property
    def freed(self) -> int:
        """Bytes: a file that the store has by a hard link costs nothing here."""
        found = (path.stat() for path in self.files)
        return sum(status.st_size for status in found if status.st_nlink == 1)

    def remove(self) -> None:
        for path in self.files:
            path.unlink(missing_ok=True)
        for folder in sorted({path.parent for path in self.files}, reverse=True):
            while folder != self.output and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent


def clean(folders: list[Path], *, yes: bool, tracking_uri: str | None = None) -> int:
    """Print what each run at or below the folders can do without, and remove it if `yes`; the bytes.
    InputError where there is no run at all."""
    outputs = sorted({output.resolve() for folder in folders for output in find_outputs(folder)})
    if not outputs:
        names = ", ".join(map(shown, folders))
        raise InputError(f"{names}: no run lies here: name a run's output folder, or a folder of them")
    total = 0
    for output in outputs:
        with _spare(output, tracking_uri) as spare:
            freed = spare.freed
            if yes:
                spare.remove()
        total += freed
        kept = f"  ({spare.kept})" * bool(spare.kept)
        print(f"{freed / 1e6:9.1f} MB  {shown(output)}{kept}")
    end = "freed" if yes else "would be freed" + ": the same with --yes removes it" * bool(total)
    print(f"{total / 1e6:9.1f} MB  {end}")
    return total


@contextmanager
def _spare(output: Path, tracking_uri: str | None) -> Iterator[Spare]:
    """Held by its outbox's lock meanwhile, so that no process goes on with the run."""
    try:
        outbox = Outbox(output)
    except InputError:
        yield Spare(output, kept="a process has it")
        return
    with outbox:
        spare = Spare(output)
        result = Result.read(output)
        if result is None or not result.status.complete:
            how = result.status if result else "no result yet"
            spare.kept = f"{how}: the same command goes on with all of it"
        else:
            spare.files = _files(output / "checkpoints", "*.pt*")
            models = output / "models"
            spare.files += [file for left in models.glob(".saving-*") for file in _files(left, "**/*")]
            spare.files += [file for left in models.glob("*.new") for file in _files(left, "**/*")]
            held = [file.parent for file in models.glob("*/MLmodel") if file.parent.suffix != ".new"]
            if held:
                spare.kept = why_models_stay(outbox, held, tracking_uri)
                if not spare.kept:
                    spare.files += [file for model in held for file in _files(model, "**/*")]
        yield spare


def _files(folder: Path, pattern: str) -> list[Path]:
    return [path for path in folder.glob(pattern) if path.is_file()]
