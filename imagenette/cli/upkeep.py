"""Verbs that mend: sync, doctor, clean."""

from __future__ import annotations

from pathlib import Path

import click

from imagenette.cli.options import Verb, flag
from imagenette.errors import EXIT_UNSYNCED


@click.command(cls=Verb, short_help="Send what a dead server missed.")
@click.argument("folder", type=click.Path(path_type=Path))
def sync(folder: Path) -> int:
    """Send everything that the tracking server still lacks of the run in FOLDER, or of all runs below it."""
    from imagenette.tracking import environment
    from imagenette.tracking.sync import sync as send

    return EXIT_UNSYNCED if send(folder, environment.tracking_uri()) else 0


@click.command(cls=Verb, short_help="Free what finished runs can do without.")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=click.Path(path_type=Path))
@flag("--yes", help="Remove it; without it, only say what would be freed.")
def clean(folders: tuple[Path, ...], yes: bool) -> None:
    """Say what the runs in each FOLDER or below (default: runs) can do without: checkpoints of those that
    ended well, and models that the tracking server has too. What a resume, an unsent record or the registry
    needs is never taken."""
    from imagenette.tracking import environment
    from imagenette.training.clean import clean as free

    free(list(folders) or [Path("runs")], yes=yes, tracking_uri=environment.tracking_uri())


@click.command(cls=Verb, short_help="Find and mend stale runs and mismatches.")
@flag("--dry-run", help="Only list.")
@flag("--all-experiments", help="Our runs in every experiment, also where MLFLOW_EXPERIMENT_NAME is set.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    help="Also look for unsent records here. [default: runs]",
)
@click.option(
    "--stale-minutes",
    type=click.FloatRange(min=0),
    default=10.0,
    help="Silence after which a run on another host is lost. [default: 10]",
)
def doctor(dry_run: bool, all_experiments: bool, folder: Path, stale_minutes: float) -> None:
    """Mend runs left RUNNING by a process that is gone, statuses that contradict each other, models left
    PENDING and records that were never sent.

    It looks at this project's runs in whatever experiment they lie; where MLFLOW_EXPERIMENT_NAME is set, at
    every run of that one."""
    from imagenette.tracking import environment
    from imagenette.tracking.doctor import doctor as examine

    examine(
        tracking_uri=environment.tracking_uri(),
        experiment=None if all_experiments else environment.named_experiment(),
        folder=folder if folder.is_dir() else None,
        stale_minutes=stale_minutes,
        dry_run=dry_run,
    )
