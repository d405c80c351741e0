"""Verbs that use a model: predict, evaluate, export, serve."""

from __future__ import annotations

from pathlib import Path

import click

from imagenette.cli.options import BAD_PICTURES, PLUGIN, NewFile, Verb, flag
from imagenette.errors import EXIT_USAGE

_MODEL = click.option(
    "--model",
    default="imagenette@champion",
    help="NAME@ALIAS, NAME/VERSION, or the folder of a saved model. [default: imagenette@champion]",
)


@click.command(cls=Verb, short_help="Classify pictures with a registered model.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE|FOLDER...")
@_MODEL
@PLUGIN
@click.option("--top", type=click.IntRange(min=1), default=3, help="Classes to name. [default: 3]")
@click.option(
    "--csv",
    type=NewFile(),
    help="Also write a row a picture into this file.",
)
@flag("--json", help="A JSON object a line, instead of a table.")
def predict(paths: tuple[Path, ...], model: str, top: int, csv: Path | None, json: bool) -> int:
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
        csv=csv,
        tracking_uri=environment.tracking_uri(),
    )
    return EXIT_USAGE if unread else 0


@click.command(cls=Verb, short_help="A registered model's accuracy on the test images of a data set.")
@_MODEL
@PLUGIN
@click.option(
    "--data",
    default="imagenette",
    help="digits, a published set, or a folder or archive. [default: imagenette]",
)
@BAD_PICTURES
@click.option("--csv", type=NewFile(), help="Also write a row an image into this file.")
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


@click.command(cls=Verb, short_help="A registered model as a file for other programs.")
@click.argument("model", default="imagenette@champion", metavar="[NAME@ALIAS|NAME/VERSION|FOLDER]")
@click.option(
    "--format",
    type=click.Choice(["onnx", "pt2", "safetensors"]),
    default="onnx",
    help="onnx and pt2 (torch.export): pictures to shares; safetensors: the bare network's weights. "
    "[default: onnx]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="A new folder. [default: NAME-VERSION-FORMAT]",
)
@PLUGIN
def export(model: str, format: str, output: Path | None) -> None:
    """Write the model's file with labels, preprocessing, and pictures with their answers to check a program
    by. The file is read back, by onnxruntime for ONNX, and must give the model's answers to 1e-4."""
    from imagenette.serving.export import export as run
    from imagenette.tracking import environment

    done = run(model, format=format, output=output, tracking_uri=environment.tracking_uri())
    click.echo(f"{done.model}: {done.folder / done.file}")
    click.echo(
        f"its shares of {done.pictures} pictures differ by at most {done.difference:.1g} from the model's"
    )


@click.command(cls=Verb, short_help="HTTP service and one page for the registered model.")
@_MODEL
@PLUGIN
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
