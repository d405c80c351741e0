"""A run as it is asked for (Job) and as it ended (Result), and what must hold before it may start."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from imagenette.config import OPERATIONAL, Config, resolve
from imagenette.errors import EXIT_DONE, EXIT_FAILED, EXIT_PREEMPTED, EXIT_UNSYNCED, InputError
from imagenette.files import write_whole
from imagenette.processes import cores


@dataclass(frozen=True, kw_only=True)
class Job:
    """One config and where its run goes: what does not belong to the experiment itself."""

    config: Config
    output: Path
    """Checkpoints, outbox, figures, logs. The same folder goes on where it stopped."""
    experiment: str = "imagenette"
    """MLflow's experiment."""
    tracking_uri: str | None = None
    """MLflow's server or database; None = MLflow's own default."""
    offline: bool = False
    """Ask no server; `imagenette sync` sends everything later."""
    run_name: str | None = None
    study: str = "none"
    arm: str | None = None
    """What this run varies, in words: `batch_size=16`. Runs of one arm differ in their seed only."""
    parent: str | None = None
    """MLflow's run under which this one is shown."""
    trial: int | None = None
    """Optuna's number, where a study's worker started this run."""

    @property
    def name(self) -> str:
        return self.run_name or f"{self.setting} seed={self.config.seed}"

    @property
    def setting(self) -> str:
        """The config in words, without its seed: `resnet18 digits 32px epochs=6 lr=0.001`."""
        config = self.config
        told = (
            "depth",
            "architecture",
            "activation",
            "data",
            "size",
            "seed",
            "epochs",
            "recipe",
            *OPERATIONAL,
        )
        base = {name: getattr(config, name) for name in ("recipe", "data", "size", "epochs")}
        usual = resolve(base | {"optimizer": config.optimizer}).params()  # what it asks for is not said again
        usual["optimizer"] = resolve(base).optimizer
        own = [f"{k}={v}" for k, v in config.params().items() if k not in told and v != usual[k]]
        recipe = [] if config.recipe == "fast" else [config.recipe]
        what = [
            config.network,
            Path(config.data).stem,
            f"{config.size}px",
            f"epochs={config.epochs}",
        ]
        return " ".join([*what, *recipe, *own])


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended."""

    status: str
    """finished, pruned, preempted, diverged, failed, or untracked (no run could be opened)."""
    run_id: str | None = None
    unsynced: int = 0
    """Records that the tracking server still lacks."""
    metrics: dict[str, float] = field(default_factory=dict)
    """`best/...`, `selected/...` and `final/...`."""
    message: str = ""

    @property
    def exit_code(self) -> int:
        if self.status in ("finished", "pruned"):
            return EXIT_UNSYNCED if self.unsynced else EXIT_DONE
        return EXIT_PREEMPTED if self.status == "preempted" else EXIT_FAILED

    def write(self, output: Path) -> None:
        write_whole(output / "result.json", json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, output: Path) -> Result | None:
        path = output / "result.json"
        return cls(**json.loads(path.read_text())) if path.exists() else None


def check_output(job: Job) -> None:
    """InputError if the output folder holds a run of another config."""
    if not (job.output / "config.json").exists():
        return
    held = read_config(job.output)
    if held.digest() != job.config.digest():
        ours, theirs = job.config.params(), held.params()
        differs = ", ".join(f"{k}={theirs[k]} (not {ours[k]})" for k in ours if ours[k] != theirs[k])
        raise InputError(f"output={job.output} holds a run with {differs}: choose another folder")


def claim_output(job: Job) -> None:
    """Make the output folder and write the config into it, unless that was done before; the result of an
    earlier, unfinished attempt goes."""
    path = job.output / "config.json"
    try:
        (job.output / "result.json").unlink(missing_ok=True)
        if not path.exists():
            job.output.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(job.config.model_dump(), indent=2) + "\n")
    except OSError as error:
        raise InputError(f"output={job.output} cannot be written: {error.strerror}") from None


def read_config(output: Path) -> Config:
    path = output / "config.json"
    try:
        return Config.model_validate_json(path.read_text())
    except (OSError, ValueError):
        raise InputError(f"output={output} is not a run's folder: {path} is missing or damaged") from None


def check_processes(config: Config, world_size: int) -> None:
    """InputError where the global batch does not divide over the processes."""
    if config.batch_size % world_size:
        raise InputError(
            f"batch_size={config.batch_size} does not divide over {world_size} processes: "
            f"batch_size must be a multiple of {world_size}"
        )


def check_batches(config: Config, *, images: int, world_size: int) -> None:
    """InputError where some step would leave a process without enough images for batch norm."""
    check_processes(config, world_size)
    partial = images % config.batch_size
    last = partial if partial and not (config.drop_last and images > config.batch_size) else config.batch_size
    fewest = min(last, config.batch_size) // world_size
    size = min(config.start_size or config.size, config.size)
    pixels = (-(-size // 32)) ** 2  # a ResNet halves its input five times
    if fewest == 0:
        raise InputError(
            f"batch_size={config.batch_size}: the last batch of {images} images has {last}, fewer than the "
            f"{world_size} processes: choose another batch_size or drop_last=true"
        )
    if fewest * pixels < 2:
        raise InputError(
            f"batch_size={config.batch_size}: a batch of 1 image at size={size} has no variance to "
            f"normalize by: choose another batch_size, a larger size or drop_last=true"
        )


def loader_threads(workers: int) -> int:
    """Threads per process that prepare pictures; 0 = this process's share of the cores."""
    return workers or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
