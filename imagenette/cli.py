"""The command line: verbs, their options, one line for every error. Imports nothing heavy before it must."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagenette import __version__
from imagenette.errors import EXIT_FAILED, EXIT_UNSYNCED, EXIT_USAGE, InputError, RunError, hide_secrets

if TYPE_CHECKING:
    from imagenette.job import Job, Result

CONTEXT: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "max_content_width": 100,
}


def main() -> None:
    """Entry point of `imagenette`; ends the process with one of the documented exit codes."""
    try:
        code = verbs.main(prog_name="imagenette", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        code = EXIT_USAGE
    except click.ClickException as error:
        code = _complain(error.format_message(), EXIT_USAGE)
    except InputError as error:
        code = _complain(str(error), EXIT_USAGE)
    except RunError as error:
        code = _complain(str(error), EXIT_FAILED)
    except (KeyboardInterrupt, click.Abort):
        code = _complain("interrupted before the first step; nothing to resume", EXIT_FAILED)
    sys.stdout.flush()
    sys.exit(code or 0)


def _complain(message: str, code: int) -> int:
    if os.environ.get("RANK", "0") == "0":  # every rank fails alike; one says so
        click.echo(f"imagenette: {' '.join(message.split())}", err=True)
    return code


class KnobCommand(click.Command):
    """A command that takes every knob of config.py as an option, in the groups of that file, but those that
    mean something else `without`."""

    def __init__(self, *args: Any, without: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._without = without
        self._knobs: dict[str, list[click.Parameter]] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from imagenette.config import GROUPS

        if self._knobs is None:  # made on first use: `imagenette --help` does without pydantic
            self._knobs = {
                group: [_knob_option(name) for name in names if name not in self._without]
                for group, names in GROUPS.items()
            }
        knobs = [option for options in self._knobs.values() for option in options]
        return [*self.params, *knobs, *self._help(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.get_params(ctx)
        assert self._knobs is not None
        own = [*self.params, *self._help(ctx)]
        groups: list[tuple[str, list[click.Parameter]]] = [*self._knobs.items(), ("This run", own)]
        for group, options in groups:
            records = [record for option in options if (record := option.get_help_record(ctx))]
            with formatter.section(group):
                formatter.write_dl(records)

    def _help(self, ctx: click.Context) -> list[click.Parameter]:
        option = self.get_help_option(ctx)
        return [option] if option else []


def _knob_option(name: str) -> click.Option:
    from imagenette.config import RECIPES, Config, allowed, canonical

    field = Config.model_fields[name]
    text = " ".join((field.description or "").split())
    defaults = {"default": field.default} | {
        r: values[name] for r, values in RECIPES.items() if name in values
    }
    told = [
        f"{recipe}: {'derived' if callable(value) else canonical(value)}"
        for recipe, value in defaults.items()
        if recipe == "default" or value != field.default
    ]
    help_text = f"{text}  [{'; '.join([allowed(name), *told])}]"
    return click.Option([f"--{name.replace('_', '-')}", name], help=help_text, metavar="VALUE")


class Flag(click.Option):
    """On when named, and able to say so: `--smoke`, `--smoke true`, as `mlflow run -P smoke=true` says it."""

    WORDS = ("true", "false", "1", "0", "yes", "no")

    @classmethod
    def spell_out(cls, args: list[str], names: Sequence[str]) -> list[str]:
        """The arguments with each of these flags as `--flag=value`."""
        said: list[str] = []
        for arg in args:
            if said and said[-1] in names and arg.lower() in cls.WORDS:
                said[-1] += f"={arg}"
            else:
                said.append(arg)
        return [f"{arg}=true" if arg in names else arg for arg in said]


class StudyCommand(KnobCommand):
    """Knobs override the study's base. Flags may carry a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = [name for option in self.params if isinstance(option, Flag) for name in option.opts]
        names += [name.replace("-", "_") for name in names]
        return super().parse_args(ctx, Flag.spell_out(args, [n.replace("__", "--", 1) for n in names]))


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="imagenette")
def verbs() -> None:
    """Image-classification experiments that can be believed: train, track, compare, resume."""


@verbs.command(cls=KnobCommand, short_help="Train one network, tracked.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of checkpoints, outbox and figures; the same folder goes on where it stopped. "
    "[default: a new one under runs/]",
)
@click.option(
    "--resume", metavar="RUN_ID", help="Go on with this MLflow run, from its folder and with its config."
)
@click.option(
    "--offline",
    type=bool,
    default=False,
    metavar="BOOL",
    help="Ask no tracking server; `imagenette sync` sends everything later. [default: false]",
)
@click.option("--run-name", help="Name shown in MLflow.")
@click.option("--study", default="none", help="Tag `study`. [default: none]")
@click.option("--arm", help="Tag `arm`: what this run varies, in words.")
@click.option("--parent", metavar="RUN_ID", help="MLflow run under which this one is shown.")
@click.option("--trial", type=int, metavar="NUMBER", help="Tag `trial`: its number in the Optuna study.")
def train(
    output: Path | None,
    resume: str | None,
    offline: bool,
    run_name: str | None,
    study: str,
    arm: str | None,
    parent: str | None,
    trial: int | None,
    **knobs: str | None,
) -> int:
    """Train one ResNet and track it in MLflow.

    Every knob has the same name here, in `mlflow run . -P NAME=VALUE`, as MLflow param and in studies.
    Explicit knobs win over the recipe, the recipe over the defaults. Hyphens and underscores both work.

    The tracking server is MLFLOW_TRACKING_URI's, the experiment MLFLOW_EXPERIMENT_NAME's (else `imagenette`).
    Exit codes: 0 done; 2 wrong usage or input; 74 finished, but the server still lacks something (see
    `imagenette sync`); 75 stopped on request, the same command with the same --output goes on; 1 anything
    else.
    """
    from imagenette.config import resolve
    from imagenette.job import Job, read_config
    from imagenette.launch import train as launch

    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    if resume:
        from imagenette.tracking.lookup import output_of

        output = output_of(resume, tracking_uri)
        config = read_config(output)
    else:
        config = resolve(_said(knobs))
    job = Job(
        config=config,
        output=output or Path("runs") / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}"),
        experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or "imagenette",
        tracking_uri=tracking_uri,
        offline=offline,
        run_name=run_name,
        study=study,
        arm=arm,
        parent=parent,
        trial=trial,
    )
    result = launch(job)
    if os.environ.get("RANK", "0") == "0":
        _say_end(job, result)
    return result.exit_code


def _say_end(job: Job, result: Result) -> None:
    if result.metrics:
        shares = ("final", "selected", "best")
        said = ", ".join(f"{name} {100 * result.metrics[f'{name}/test_accuracy']:.2f} %" for name in shares)
        click.echo(f"test accuracy: {said}", err=True)
    if result.message:
        click.echo(f"imagenette: {result.status}: {result.message}", err=True)
    if result.unsynced:
        click.echo(
            f"imagenette: {result.unsynced} records are not on a tracking server: "
            f"`imagenette sync {job.output}` sends them",
            err=True,
        )
    click.echo(f"{result.status}: run {result.run_id or '(not yet on a server)'} in {job.output}", err=True)


_STORAGE = click.option(
    "--storage",
    metavar="URL",
    help="Optuna's database: sqlite:///FILE or postgresql://... [default: OPTUNA_STORAGE, else "
    "sqlite:///optuna.db]",
)


@verbs.command(
    cls=StudyCommand, without=("seed", "workers"), short_help="Run or resume a study: a grid, or a search."
)
@click.argument("name")
@click.option("--workers", type=click.IntRange(min=1), default=1, help="Trainings at once. [default: 1]")
@click.option("--smoke", cls=Flag, type=bool, default=False, metavar="", help="The study's tiny form.")
@click.option("--label", help="Appended to the study's name, so that two forms of it can stand side by side.")
@_STORAGE
@click.option(
    "--retry-failed", cls=Flag, type=bool, default=False, metavar="", help="Also run failed cells again."
)
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
    smoke: bool,
    label: str | None,
    storage: str | None,
    retry_failed: bool,
    output: Path,
    grace: float,
    **knobs: str | None,
) -> int:
    """Run the study NAME (of studies/, or a TOML file's path) with its workers, or go on where it stopped.

    Each cell of the grid, with each seed, is one trial in Optuna and one run in MLflow under the study's
    parent run. Machines may share a study: same command, same --storage (PostgreSQL), same MLflow. Knobs
    given here override the study's base for every cell.

    Exit codes: 0 every cell is done; 1 some failed; 2 wrong usage or input; 74 done, but the tracking server
    still lacks something; 75 stopped on request: the same command goes on.
    """
    from imagenette.study.definition import load
    from imagenette.study.driver import Plan, run_study
    from imagenette.study.storage import resolve_storage

    definition = load(name, overrides=_said(knobs), smoke=smoke, label=label)
    plan = Plan(
        storage=resolve_storage(storage),
        workers=workers,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or None,
        experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or "imagenette",
        runs=output,
        retry_failed=retry_failed,
        grace=grace,
        again=_again(),
    )
    return run_study(definition, plan)


def _again() -> str:
    """This command line, to be shown: without a password in a database's address."""
    said = Flag.spell_out(sys.argv[1:], ["--retry-failed", "--retry_failed"])
    return shlex.join(
        ["imagenette", *(hide_secrets(text) for text in said if not text.startswith("--retry"))]
    )


@verbs.command(short_help="How far a study is: done, running where, failed why, time left.")
@click.argument("name", required=False)
@_STORAGE
@click.option("--watch", is_flag=True, help="Refresh until the study has ended, or Ctrl-C.")
def status(name: str | None, storage: str | None, watch: bool) -> None:
    """Show the study NAME, or a line for each study in the storage."""
    from imagenette.study.status import show_status

    show_status(name, storage, watch=watch)


@verbs.command(cls=KnobCommand, short_help="Training speed against the machine's own limit.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Turns of each kind. [default: 5]")
@click.option(
    "--steps", type=click.IntRange(min=1), default=20, help="Optimizer steps per turn. [default: 20]"
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the figures here.",
)
def bench(rounds: int, steps: int, json_file: Path | None, **knobs: str | None) -> None:
    """Training images/s with the real data path and with one resident batch, in turns, and their ratio."""
    from imagenette.config import resolve
    from imagenette.launch import prepare

    config = resolve(_said(knobs))
    dataset = prepare(config, processes=1)
    from imagenette.bench import measure

    speed = measure(config, dataset, rounds=rounds, steps=steps)
    click.echo("\n".join(speed.lines()))
    if json_file:
        json_file.write_text(json.dumps(speed.summary(), indent=2) + "\n")


@verbs.command(short_help="Fetch, verify and prepare a data set.")
@click.argument("source", default="imagenette")
@click.option(
    "--size",
    type=click.IntRange(32, 1024),
    default=128,
    help="Prepare for training at this size. [default: 128]",
)
def data(source: str, size: int) -> None:
    """Make SOURCE ready and print what it holds.

    SOURCE is digits, imagenette, imagenette-320px, imagenette-160px or a path to a folder or archive."""
    from imagenette.config import resolve
    from imagenette.data import open_dataset
    from imagenette.launch import stored_side

    dataset = open_dataset(source, side=stored_side(resolve({"data": source, "size": str(size)})))
    click.echo(f"{dataset.name}: {len(dataset.train)} training and {len(dataset.test)} test images")
    click.echo(f"classes: {', '.join(dataset.labels)}")
    click.echo(f"stored at {dataset.side} x {dataset.side} px, digest {dataset.digest}")


@verbs.command(short_help="Send what a dead server missed.")
@click.argument("folder", type=click.Path(path_type=Path))
def sync(folder: Path) -> int:
    """Send everything the tracking server still lacks of the run in FOLDER, or of all runs below it."""
    from imagenette.tracking.sync import sync as send

    return EXIT_UNSYNCED if send(folder, os.environ.get("MLFLOW_TRACKING_URI") or None) else 0


@verbs.command(short_help="Find and mend stale runs and mismatches.")
@click.option("--dry-run", is_flag=True, help="Only list.")
@click.option(
    "--all-experiments", is_flag=True, help="Not only MLFLOW_EXPERIMENT_NAME's (else `imagenette`)."
)
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
    PENDING and records that were never sent."""
    from imagenette.tracking.doctor import doctor as examine

    examine(
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or None,
        experiment=None if all_experiments else os.environ.get("MLFLOW_EXPERIMENT_NAME") or "imagenette",
        folder=folder if folder.is_dir() else None,
        stale_minutes=stale_minutes,
        dry_run=dry_run,
    )


def _said(knobs: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in knobs.items() if value is not None}
