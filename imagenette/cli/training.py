"""Verbs of one training: train, bench, data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagenette.cli.options import BAD_PICTURES, NewFile, Verb, flag, given
from imagenette.errors import shown

if TYPE_CHECKING:
    from imagenette.training.job import Job, Result


_CONFIG = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Knobs from a file, TOML or a run's config.json; those named here win over it.",
)


@click.command(cls=Verb, knobs=True, short_help="Train one network, tracked.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of checkpoints, outbox and figures; the same folder goes on where it stopped. "
    "[default: a new one under runs/]",
)
@_CONFIG
@click.option(
    "--resume", metavar="RUN_ID", help="Go on with this MLflow run, from its folder and with its config."
)
@click.option(
    "--extend",
    metavar="RUN_ID|FOLDER",
    help="More epochs than this finished run had, in a run of their own (schedule constant).",
)
@flag("--offline", help="Use no tracking server; `imagenette sync` sends everything later.")
@click.option("--run-name", help="Name shown in MLflow.")
@click.option("--study", default="none", help="Tag `study`. [default: none]")
@click.option("--arm", help="Tag `arm`: what this run varies, in words.")
@click.option("--parent", metavar="RUN_ID", help="MLflow run under which this one is shown.")
@click.option("--trial", type=int, metavar="NUMBER", help="Tag `trial`: its number in the Optuna study.")
def train(
    output: Path | None,
    config_file: Path | None,
    resume: str | None,
    extend: str | None,
    offline: bool,
    run_name: str | None,
    study: str,
    arm: str | None,
    parent: str | None,
    trial: int | None,
    **knobs: str | None,
) -> int:
    """Train one network and track it in MLflow.

    Every knob has the same name here, in `mlflow run . -P NAME=VALUE`, as MLflow param and in studies.
    Explicit knobs win over the recipe, the recipe over the defaults. Hyphens and underscores both work.

    The tracking server is MLFLOW_TRACKING_URI's, the experiment MLFLOW_EXPERIMENT_NAME's (else `imagenette`).
    Exit codes: 0 done; 2 wrong usage or input; 74 finished, but a server that was wanted still lacks
    something (see `imagenette sync`); 75 stopped on request, the same command with the same --output goes
    on; 1 anything else.
    """
    from imagenette.api import new_output
    from imagenette.config import resolve
    from imagenette.tracking import environment
    from imagenette.tracking.runs import output_of
    from imagenette.training.job import Job, read_config
    from imagenette.training.launch import train as launch
    from imagenette.training.ranks import speaks

    tracking_uri = environment.tracking_uri()
    if resume:
        output = output_of(resume, tracking_uri)
        config = read_config(output)
    elif extend:
        from imagenette.training.extend import extend as begin

        output = environment.lasting(output or new_output())
        finished = Path(extend) if Path(extend).is_dir() else output_of(extend, tracking_uri)
        config = begin(finished, given(knobs, config_file), output, first=speaks())
    else:
        config = resolve(given(knobs, config_file))
    job = Job(
        config=config,
        output=environment.lasting(output or new_output()),
        experiment=environment.experiment_name(),
        tracking_uri=tracking_uri,
        offline=offline,
        run_name=run_name,
        study=study,
        arm=arm,
        parent=parent,
        trial=trial,
    )
    result = launch(job)
    if speaks():
        _print_end(job, result)
    return result.exit_code(offline=offline)


def _print_end(job: Job, result: Result) -> None:
    if result.metrics:
        shares = ("final", "selected", "best")
        accuracies = (f"{name} {100 * result.metrics[f'{name}/test_accuracy']:.2f} %" for name in shares)
        click.echo(f"test accuracy: {', '.join(accuracies)}", err=True)
    if result.message:
        click.echo(f"imagenette: {result.status}: {shown(result.message)}", err=True)
    output = shown(job.output.resolve())
    if result.unsynced:
        why = "offline" if job.offline else "the tracking server lacks them"
        click.echo(
            f"imagenette: {result.unsynced} records wait here ({why}): `imagenette sync {output}` sends them",
            err=True,
        )
    click.echo(f"{result.status}: run {result.run_id or '(not yet on a server)'} in {output}", err=True)
    for what, page in zip(("the run", "all runs"), result.pages, strict=False):
        click.echo(f"{what}: {page}", err=True)


@click.command(cls=Verb, knobs=True, short_help="Training speed against the machine's own limit.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Turns of each kind. [default: 5]")
@click.option(
    "--steps", type=click.IntRange(min=1), default=20, help="Optimizer steps per turn. [default: 20]"
)
@click.option(
    "--json",
    "json_file",
    type=NewFile(),
    help="Also write the figures here.",
)
@_CONFIG
def bench(
    rounds: int, steps: int, json_file: Path | None, config_file: Path | None, **knobs: str | None
) -> None:
    """Training images/s with the real data path and with one resident batch, in turns, and their ratio."""
    from imagenette.config import resolve
    from imagenette.training.readiness import check_device, prepare

    config = resolve(given(knobs, config_file))
    check_device(config, processes=1)
    dataset = prepare(config, processes=1)
    from imagenette.training.bench import measure

    speed = measure(config, dataset, rounds=rounds, steps=steps)
    click.echo("\n".join(speed.lines()))
    if json_file:
        json_file.write_text(json.dumps(speed.summary(), indent=2) + "\n", encoding="utf-8")


@click.command(
    cls=Verb, knobs=True, without=["lr", "nproc"], short_help="Which learning rate a config bears."
)
@click.option("--low", type=float, help="First rate. [default: the optimizer's own / 1000]")
@click.option("--high", type=float, help="Last rate. [default: the optimizer's own x 100]")
@click.option("--steps", type=click.IntRange(min=10), default=200, help="At most so many. [default: 200]")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("lr-range"),
    help="Folder for the plot and the figures. [default: lr-range]",
)
@flag("--offline", help="Use no tracking server.")
@_CONFIG
def lr_range(
    low: float | None,
    high: float | None,
    steps: int,
    output: Path,
    offline: bool,
    config_file: Path | None,
    **knobs: str | None,
) -> None:
    """Train while the rate rises from step to step (Smith 2017): the loss falls, is lowest, gets out of hand.

    Prints where it falls fastest and where it is lowest, writes lr-range.png and lr-range.json, and logs them
    as a run of MLflow. What a schedule peaks at lies between the two."""
    from imagenette.config import OPTIMIZERS, resolve
    from imagenette.training.readiness import check_device, prepare

    config = resolve(given(knobs, config_file))
    check_device(config, processes=1)
    dataset = prepare(config, processes=1)
    from imagenette.training.lr_range import report

    usual = OPTIMIZERS[config.optimizer].lr
    found, run_id = report(
        config,
        dataset,
        output,
        low=low or usual / 1000,
        high=high or usual * 100,
        steps=steps,
        offline=offline,
    )
    click.echo("\n".join(found.lines()))
    click.echo(f"plot: {shown(output / 'lr-range.png')}" + (f", run {run_id}" if run_id else ""))


@click.command(cls=Verb, short_help="Fetch, verify and prepare a data set.")
@click.argument("source", default="imagenette")
@click.option(
    "--size",
    type=click.IntRange(32, 1024),
    default=128,
    help="Prepare for training at this size. [default: 128]",
)
@BAD_PICTURES
def data(source: str, size: int, bad_pictures: str) -> None:
    """Make SOURCE ready and print what it holds.

    SOURCE is digits, imagenette, imagenette-320px, imagenette-160px or a path to a folder or archive."""
    from imagenette.config import resolve
    from imagenette.data import open_dataset
    from imagenette.training.readiness import stored_side

    side = stored_side(resolve({"data": source, "size": str(size)}))
    dataset = open_dataset(source, side=side, bad_pictures=bad_pictures)
    click.echo(f"{shown(dataset.name)}: {len(dataset.train)} training and {len(dataset.test)} test images")
    click.echo(f"classes: {', '.join(dataset.labels)}")
    click.echo(f"stored at {dataset.side} x {dataset.side} px, digest {dataset.digest}")
