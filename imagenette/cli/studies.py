"""Verbs of studies: study, status, report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagenette.cli.options import Verb, flag, given, spell_out
from imagenette.errors import EXIT_DONE, hide_secrets

if TYPE_CHECKING:
    from imagenette.tracking.study_plan import StudyPlan

_STORAGE = click.option(
    "--storage",
    metavar="URL",
    help="Optuna's database: sqlite:///FILE or postgresql://... [default: OPTUNA_STORAGE, else "
    "sqlite:///optuna.db]",
)


@click.command(
    cls=Verb,
    knobs=True,
    without=("seed", "workers"),
    short_help="Run or resume a study: a grid, or a search.",
)
@click.argument("name")
@click.option("--workers", type=click.IntRange(min=1), default=1, help="Trainings at once. [default: 1]")
@flag("--small", help="The study's [small] form: the same question at a scale for a computer without a GPU.")
@flag("--smoke", help="The study's tiny form, on the digits.")
@click.option("--label", help="Appended to the study's name, so that two forms of it can stand side by side.")
@_STORAGE
@flag("--plan", help="Only say what it will take, and how small a difference it can find.")
@flag("--retry-failed", help="Also run failed cells again.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    help="Folder for the study's folder. [default: runs]",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=1),
    default=60.0,
    help="Seconds without a sign of life after which a worker is given up for dead. [default: 60]",
)
def study(
    name: str,
    workers: int,
    small: bool,
    smoke: bool,
    label: str | None,
    storage: str | None,
    plan: bool,
    retry_failed: bool,
    output: Path,
    grace: float,
    **knobs: str | None,
) -> int:
    """Run the study NAME (of studies/, or a TOML file's path) with its workers, or go on where it stopped.

    Each cell of the grid, with each seed, is one trial in Optuna and one run in MLflow under the study's
    parent run. Machines may share a study: same command, same --storage (PostgreSQL), same MLflow. Knobs
    given here override the study's base for every cell. With --plan nothing is trained and nothing written.

    Exit codes: 0 every cell is done; 1 some failed; 2 wrong usage or input; 74 done, but the tracking server
    still lacks something; 75 stopped on request: the same command goes on.
    """
    from imagenette.study.definition import Form, load
    from imagenette.study.storage import resolve_storage
    from imagenette.tracking import environment

    if small and smoke:
        raise click.UsageError("--small and --smoke: must be one of the two")
    form: Form = "small" if small else "smoke" if smoke else "full"
    definition = load(name, overrides=given(knobs), form=form, label=label)
    places: dict[str, Any] = {
        "storage": resolve_storage(storage),
        "workers": workers,
        "tracking_uri": environment.tracking_uri(),
        "experiment": environment.named_experiment(),
    }
    if plan:
        from imagenette.study.forecast import show_forecast

        show_forecast(definition, **places)
        return EXIT_DONE
    from imagenette.study.driver import run_study
    from imagenette.study.start import Plan

    how = Plan(
        **places,
        runs=environment.lasting(output),
        retry_failed=retry_failed,
        grace=grace,
        again=_again(),
    )
    return run_study(definition, how)


def _again() -> str:
    """This command line, to be shown: without a password in a database's address."""
    words = spell_out(sys.argv[1:], ["--retry-failed"])
    return shlex.join(
        ["imagenette", *(hide_secrets(text) for text in words if not text.startswith("--retry"))]
    )


@click.command(cls=Verb, short_help="How far a study is: done, running where, failed why, time left.")
@click.argument("name", required=False)
@_STORAGE
@flag("--watch", help="Refresh until the study has ended, or Ctrl-C.")
def status(name: str | None, storage: str | None, watch: bool) -> None:
    """Show the study NAME, or a line for each study in the storage."""
    from imagenette.study.status import show_status

    show_status(name, storage, watch=watch)


@click.command(cls=Verb, short_help="Tables and figures of studies, beside the published ones.")
@click.argument("studies", nargs=-1, metavar="[STUDY...]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("report"),
    help="Folder for report.html, report.md and a folder for each study. [default: report]",
)
@flag("--watch", help="Make it anew whenever something changes, until every study has ended.")
@click.option("--name", metavar="NAME", help="Registered model. [default: any that is on a study's data]")
@flag("--log", default=True, help="Show each report under its study's parent run too.")
@click.option(
    "--from",
    "bundles",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="BUNDLE",
    help="Read this folder, which --bundle wrote, in place of a tracking server; may be repeated.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write what the report was made from: runs, curves, predictions, as Parquet files.",
)
@click.option(
    "--readme",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also put the results into this Markdown file, between its two `imagenette report` comments.",
)
def report(
    studies: tuple[str, ...],
    out: Path,
    watch: bool,
    name: str | None,
    log: bool,
    bundles: tuple[Path, ...],
    bundle: Path | None,
    readme: Path | None,
) -> None:
    """Tables, figures and conclusions of each STUDY (else of every study, in whatever experiment), from the
    tracking server alone, or from bundles: one HTML page, Markdown, CSV, LaTeX, SVG, PDF and PNG.

    Exit codes: 0 written; 2 no such study; 1 the server does not answer.
    """
    from imagenette.report import Request
    from imagenette.report import report as run
    from imagenette.tracking import environment

    if bundles and watch:
        raise click.UsageError("--watch: a bundle does not change; leave it or --from out")
    request = Request(
        studies=tuple(word for text in studies for word in text.split(",") if word),
        out=environment.lasting(out),
        tracking_uri=environment.tracking_uri(),
        experiment=environment.named_experiment(),
        model=name,
        watch=watch,
        log=log,
        bundles=bundles,
        bundle=bundle,
        readme=readme,
        known=_shipped,
    )
    run(request, click.echo)


def _shipped(name: str) -> StudyPlan | None:
    """What a study that comes with the project plans."""
    from imagenette.study.definition import load, shipped

    return load(name).outline() if name in shipped() else None
