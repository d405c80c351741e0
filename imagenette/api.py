"""Verbs as functions, for programs and notebooks: `from imagenette import train, load_champion`. Others are
where the verb's own work is: `report.pair.compare_runs`, `report.frame.runs`, `study.call.study`.

Server and experiment are the environment's, as for the verbs (`mlflow.set_tracking_uri` sets it). Wrong input
is an InputError of one line.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagenette.config import Config, resolve
from imagenette.config import plugin as plugins
from imagenette.tracking import environment
from imagenette.tracking.address import CHAMPION, NAME

if TYPE_CHECKING:
    from imagenette.registry.model import Model
    from imagenette.training.job import Result


def train(
    config: Config | None = None,
    *,
    output: str | Path | None = None,
    offline: bool = False,
    run_name: str | None = None,
    **knobs: Any,
) -> Result:
    """Train one network, tracked, as `imagenette train` does: the same config gives the same weights.

        result = train(data="digits", epochs=3, weight_decay=1e-3, output="runs/first")
        print(result.status, result.run_id, result.metrics["selected/test_accuracy"])

    config: a whole one; knobs, by the names of the command line, win over it. output: folder of checkpoints,
    models and figures, which goes on where it stopped; else a new one below runs/. offline: use no server;
    `imagenette sync` sends everything later. An interrupt saves, and ends with the status `preempted`.
    InputError before anything is made.
    """
    from imagenette.training.job import Job
    from imagenette.training.launch import train as launch

    return launch(
        Job(
            config=resolve((config.model_dump() if config else {}) | knobs),
            output=Path(output) if output else new_output(),
            experiment=environment.experiment_name(),
            tracking_uri=environment.tracking_uri(),
            offline=offline,
            run_name=run_name,
        )
    )


def new_output() -> Path:
    """A folder of a run's own, from the time and the process."""
    return Path("runs") / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}")


def load_champion(name: str = NAME, *, plugin: str | Path | None = None) -> Model:
    """The best registered model, once its self-test gives training's answers.

        model = load_champion()
        shares = model.classify(["a.jpg", PIL.Image.open("b.png")])    # a row a picture, a column a class
        print(shares.idxmax(axis=1))

    name: of the registered model, or NAME@ALIAS, NAME/VERSION, or the folder of a saved model. plugin: the
    one that builds its network, where one does. Nothing is unpickled. InputError if there is none or it is
    not what it should be, RunError if the server is dead.
    """
    from imagenette.registry import is_model_folder, load

    if plugin:
        plugins.load(str(plugin))
    plain = "@" not in name and "/" not in name and not is_model_folder(name)
    return load(f"{name}@{CHAMPION}" if plain else name, tracking_uri=environment.tracking_uri())
