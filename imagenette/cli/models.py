"""Verbs of registered models: promote, rollback, models, lineage, predict, serve."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagenette.cli.options import Verb, flag
from imagenette.errors import EXIT_USAGE

if TYPE_CHECKING:
    from imagenette.registry.gate import Gate

_MODEL = click.option(
    "--model",
    default="imagenette@champion",
    help="NAME@ALIAS, NAME/VERSION, or the folder of a saved model. [default: imagenette@champion]",
)


@click.command(cls=Verb, short_help="Register the best run; it is champion if the gate lets it.")
@click.option("--study", metavar="NAME", help="Only runs of this study.")
@click.option("--run", "run_id", metavar="RUN_ID", help="This run.")
@click.option(
    "--gate",
    type=click.Choice(["better", "significant", "force"]),
    default="better",
    help="better: higher on the selection metric and not significantly worse on the test images (McNemar); "
    "significant: also significantly better on them; force: whatever the figures. [default: better]",
)
@click.option(
    "--metric",
    type=click.Choice(["selected/holdout_accuracy", "selected/test_accuracy"]),
    default="selected/holdout_accuracy",
    help="Selection metric. The second chooses on the test set, which flatters. "
    "[default: selected/holdout_accuracy]",
)
@flag("--other-data", help="Allow a run on other data than the champion's.")
@flag("--dry-run", help="Only print what would be done.")
@click.option(
    "--name",
    metavar="NAME",
    help="Registered model. [default: imagenette for Imagenette, imagenette-DATA for other data]",
)
def promote(
    study: str | None,
    run_id: str | None,
    gate: Gate,
    metric: str,
    other_data: bool,
    dry_run: bool,
    name: str | None,
) -> None:
    """Prove the best finished run's model and register it; the alias champion moves if the gate allows.

    Without --study or --run it is the best of all runs on the champion's data, in whatever experiment they
    lie (MLFLOW_EXPERIMENT_NAME names one); without a champion, on Imagenette. The model is fetched and
    loaded, and must give the answers that training gave.

    Exit codes: 0 registered, or already there; 1 the gate says no; 2 the run cannot be promoted.
    """
    from imagenette.registry import promote as promote_run
    from imagenette.tracking import environment

    if study and run_id:
        raise click.UsageError("--study and --run exclude each other")
    promotion = promote_run(
        tracking_uri=environment.tracking_uri(),
        experiment=environment.named_experiment(),
        name=name,
        run_id=run_id,
        study=study,
        gate=gate,
        metric=metric,
        other_data=other_data,
        dry_run=dry_run,
        report=click.echo,
    )
    click.echo(promotion.message)


@click.command(cls=Verb, short_help="Withdraw the champion; the one before it takes its place.")
@click.option("--name", default="imagenette", help="Registered model. [default: imagenette]", metavar="NAME")
def rollback(name: str) -> None:
    """Withdraw the champion; the version before it takes its place, once it has proved that it works."""
    from imagenette.registry import rollback as roll_back
    from imagenette.tracking import environment

    done = roll_back(tracking_uri=environment.tracking_uri(), name=name, report=click.echo)
    click.echo(done.message)


@click.command(cls=Verb, short_help="The registered models, how good they are, and on which data.")
@flag("--json", help="As JSON.")
def models(json: bool) -> None:
    """Every promoted version: its accuracy on the test images in % (and its 95 % interval), its run, date
    and aliases."""
    from imagenette.registry import registered
    from imagenette.tracking import environment

    found = registered(tracking_uri=environment.tracking_uri())
    if json:
        click.echo(dumps([each.to_json() for each in found], indent=2))
        return
    if not found:
        click.echo("no model is registered yet: `imagenette promote` registers one")
        return
    from itertools import groupby

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for (name, data, images), versions in groupby(
        found, lambda each: (each.name, each.data, each.test_images)
    ):
        title = Text(f"{name}: {data}, {images:,} test images", style="bold")
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
        for heading in ("version", "test [95 %]", "run", "date"):
            table.add_column(heading, no_wrap=True)
        table.add_column("", overflow="fold")
        for each in versions:
            low, high = each.interval
            table.add_row(
                str(each.version),
                f"{100 * each.test_accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
                each.run_id or "",
                each.created[:10],
                " ".join([*each.aliases, *["withdrawn"] * each.withdrawn]),
            )
        console.print(table)


@click.command(cls=Verb, short_help="Where a registered model comes from.")
@click.argument("model", default="imagenette@champion", metavar="[NAME@ALIAS|NAME/VERSION]")
@flag("--json", help="As JSON.")
def lineage(model: str, json: bool) -> None:
    """Version, metrics, run, study, trial, commit, data digest and environment of a registered model."""
    from imagenette.registry import lineage as look_up
    from imagenette.tracking import environment

    found = look_up(model, tracking_uri=environment.tracking_uri())
    if json:
        click.echo(dumps(found.to_json(), indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for what, value in found.rows():
        table.add_row(what, Text(value))
    Console().print(table)
    if found.reproduce:  # on a line of its own, whole: a table would break it where no shell reads on
        click.echo(f"\nThe command that trains it again:\n{found.reproduce}")


@click.command(cls=Verb, short_help="Classify pictures with a registered model.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE|FOLDER...")
@_MODEL
@click.option("--top", type=click.IntRange(min=1), default=3, help="Classes to name. [default: 3]")
@flag("--json", help="A JSON object a line, instead of a table.")
def predict(paths: tuple[Path, ...], model: str, top: int, json: bool) -> int:
    """Classify picture files, and all pictures in folders and below.

    What cannot be read is named on standard error and left out; the exit code is then 2.
    """
    from imagenette.serving.predict import predict as run
    from imagenette.tracking import environment

    unread = run(
        paths,
        model=model,
        top=top,
        as_json=json,
        tracking_uri=environment.tracking_uri(),
    )
    return EXIT_USAGE if unread else 0


@click.command(cls=Verb, short_help="A registered model's accuracy on the test images of a data set.")
@_MODEL
@click.option(
    "--data",
    default="imagenette",
    help="digits, a published set, or a folder or archive. [default: imagenette]",
)
@click.option(
    "--bad-pictures",
    type=click.Choice(["refuse", "skip"]),
    default="refuse",
    help="What to do about pictures that cannot be read. [default: refuse]",
)
@click.option(
    "--csv", type=click.Path(path_type=Path, dir_okay=False), help="Also write a row an image into this file."
)
@flag("--json", help="One JSON object instead of a table.")
def evaluate(model: str, data: str, bad_pictures: str, csv: Path | None, json: bool) -> None:
    """Ask the model about every test image of a data set, prepared as in training: accuracy with its
    interval, and class by class what it takes for what.

    On the data that it was trained on these are the run's own figures, to the image.
    """
    from imagenette.serving.evaluate import evaluate as run
    from imagenette.serving.evaluate import show
    from imagenette.tracking import environment

    found = run(model, data, bad_pictures=bad_pictures, tracking_uri=environment.tracking_uri())
    show(found, as_json=json, csv=csv)


@click.command(cls=Verb, short_help="HTTP service and one page for the registered model.")
@_MODEL
@click.option("--host", default="127.0.0.1", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="0 = any free one. [default: 8000]")
@click.option(
    "--follow",
    type=click.FloatRange(min=0),
    default=10.0,
    help="Seconds between two looks at the alias; 0 = never. [default: 10]",
)
@flag("--wait", help="Start without a model, and take the first that is there.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Ask for this file's first line, with the user name imagenette, on every route but /health.",
)
@click.option(
    "--allowed-hosts",
    metavar="NAMES",
    help="Names that requests may come by, with commas and *. [default: on loopback its own, else any]",
)
@click.option(
    "--max-batch", type=click.IntRange(min=1), default=32, help="Pictures in one pass. [default: 32]"
)
@click.option("--max-files", type=click.IntRange(min=1), default=32, help="Files a request. [default: 32]")
@click.option(
    "--max-bytes", type=click.IntRange(min=1), default=16_000_000, help="Of a request. [default: 16000000]"
)
@click.option(
    "--max-pixels", type=click.IntRange(min=1), default=25_000_000, help="Of a picture. [default: 25000000]"
)
@click.option(
    "--max-seconds", type=click.FloatRange(min=0.1), default=10.0, help="Of a request. [default: 10]"
)
def serve(
    model: str,
    host: str,
    port: int,
    follow: float,
    wait: bool,
    password_file: Path | None,
    allowed_hosts: str | None,
    max_batch: int,
    max_files: int,
    max_bytes: int,
    max_pixels: int,
    max_seconds: float,
) -> None:
    """Serve the model over HTTP: a page at /, POST /predict, GET /model, /health, /ready,
    /metrics, /openapi.json.

    A new champion is loaded, proved and swapped in while requests go on; one that fails its proof is refused
    and the old one stays. Ctrl-C and SIGTERM finish what is under way.
    """
    from imagenette.guard import read_password
    from imagenette.serving.limits import Limits
    from imagenette.serving.server import serve as run
    from imagenette.tracking import environment

    run(
        model,
        host=host,
        port=port,
        follow=follow,
        wait=wait,
        limits=Limits(
            batch=max_batch, files=max_files, body=max_bytes, pixels=max_pixels, seconds=max_seconds
        ),
        tracking_uri=environment.tracking_uri(),
        hosts=[name for name in (allowed_hosts or "").split(",") if name],
        password=read_password(password_file) if password_file else None,
    )
