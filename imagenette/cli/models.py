"""Verbs of the registry: promote, rollback, models, lineage."""

from __future__ import annotations

from json import dumps
from typing import TYPE_CHECKING

import click

from imagenette.cli.options import PLUGIN, Verb, flag

if TYPE_CHECKING:
    from imagenette.registry.gate import Gate


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
@PLUGIN
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
@PLUGIN
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
