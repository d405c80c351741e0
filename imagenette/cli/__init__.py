"""The command line: verbs, their options, one line for every error.

Owns what a person types and reads in a terminal; each verb's work is another folder's. Nothing imports it.
Nothing heavy is imported before a verb needs it: `imagenette --help` takes hundredths of a second.
"""

from __future__ import annotations

import codecs
import errno
import locale
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from imagenette import __version__
from imagenette.cli.compare import compare
from imagenette.cli.models import lineage, models, promote, rollback
from imagenette.cli.server import server, ui
from imagenette.cli.serving import evaluate, export, predict, serve
from imagenette.cli.studies import report, status, study
from imagenette.cli.training import bench, data, lr_range, train
from imagenette.cli.upkeep import clean, doctor, sync
from imagenette.errors import EXIT_FAILED, EXIT_PREEMPTED, EXIT_USAGE, InputError, RunError, shown, to_install
from imagenette.files import expanded
from imagenette.processes import on_stop

EXTRAS = {
    **dict.fromkeys(
        ("torch", "torchvision", "timm", "sklearn", "PIL", "safetensors", "optuna", "backports"), "train"
    ),
    **dict.fromkeys(("matplotlib", "pandas", "jinja2"), "report"),
    **dict.fromkeys(("fastapi", "uvicorn", "python_multipart", "prometheus_client"), "serve"),
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "export"),
}
"""Package -> the extra that brings it, for a verb that finds it missing."""

CONTEXT: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "max_content_width": 100,
}


def main() -> None:
    """Entry point of `imagenette`; ends the process with one of the documented exit codes."""
    _speak_utf8()
    on_stop(signal.default_int_handler)  # until a verb does better, what lies half written is removed
    if expanded("~") == Path("~"):  # neither HOME nor an entry in passwd: MLflow's import would fail
        os.environ["HOME"] = "/"  # as in a container that was started with a bare user id
        os.environ.setdefault("LOGNAME", str(os.getuid()))
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
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise
        code = _complain(f"{error.filename or 'cannot write'}: {error.strerror}", EXIT_FAILED)
    except ModuleNotFoundError as error:
        if (extra := EXTRAS.get((error.name or "").partition(".")[0])) is None:
            raise
        code = _complain(f"{error.name} is not installed: {to_install(extra)}", EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):
        code = _stopped()
    sys.stdout.flush()
    sys.exit(code or 0)


def _speak_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding: what is printed and what
    files and classes are called are then the same everywhere, in processes that this one starts too."""
    if codecs.lookup(locale.getencoding()).name != "utf-8" and not sys.flags.utf8_mode:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _complain(message: str, code: int) -> int:
    from imagenette.training.ranks import speaks

    if sys.argv[1:2] != ["train"] or speaks():
        click.echo(f"imagenette: {shown(' '.join(message.split()))}", err=True)
    return code


def _stopped() -> int:
    """Asked to stop before there was anything to save. `mlflow run`'s run must not stay RUNNING."""
    on_stop(signal.SIG_DFL)  # whoever asks again does not want to wait
    goes_on = sys.argv[1:2] in (["train"], ["study"])
    code = _complain("stopped on request", EXIT_PREEMPTED if goes_on else EXIT_FAILED)
    from imagenette.tracking import environment

    if environment.has_outer_run():
        from imagenette.tracking.outer_run import end_stopped

        end_stopped(environment.tracking_uri())
    return code


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="imagenette")
def verbs() -> None:
    """Image-classification experiments that can be believed: train, track, compare, resume."""


for verb in (
    train,
    study,
    status,
    report,
    compare,
    promote,
    rollback,
    models,
    lineage,
    predict,
    evaluate,
    export,
    serve,
    server,
    ui,
    bench,
    lr_range,
    data,
    sync,
    doctor,
    clean,
):
    verbs.add_command(verb)
