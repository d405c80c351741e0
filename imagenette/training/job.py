"""One training as it is ordered (Job) and as it ended (Result), and the folder that holds both."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from imagenette.artifacts import CONFIG
from imagenette.config import OPERATIONAL, Config, canonical, resolve
from imagenette.errors import EXIT_DONE, EXIT_FAILED, EXIT_PREEMPTED, EXIT_UNSYNCED, InputError, shown
from imagenette.files import write_whole
from imagenette.results import Status
from imagenette.tracking.outbox import trained_on

RESULT = "result.json"


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

    def arguments(self) -> list[str]:
        """The options of `imagenette train` that order this job, every knob named. The environment names the
        server and the experiment, so they are not among them."""
        options = {
            "output": self.output,
            "offline": self.offline,
            "run-name": self.run_name,
            "study": self.study,
            "arm": self.arm,
            "parent": self.parent,
            "trial": self.trial,
            **self.config.params(),
        }
        return [f"--{name}={canonical(value)}" for name, value in options.items() if value is not None]

    @property
    def name(self) -> str:
        """For lists, which show twenty characters: `resnet18 32px 16ep s1`, and then what is not usual."""
        config, words = self.config, self.setting.split(" ")
        brief = f"{config.network} {config.size}px {config.epochs}ep s{config.seed}"
        return self.run_name or " ".join([brief, *words[4:]])

    @property
    def setting(self) -> str:
        """The config in words, without its seed: `resnet18 digits 32px epochs=6 lr=0.001`."""
        config = self.config
        # What the recipe, the data set and the optimizer bring is not repeated.
        base = {name: getattr(config, name) for name in ("recipe", "data", "size", "epochs", "plugin")}
        usual = resolve(base | {"optimizer": config.optimizer}).params()
        usual["optimizer"] = resolve(base).optimizer
        named = {"depth", "architecture", "activation", "seed", *base, *OPERATIONAL}
        own = [f"{k}={v}" for k, v in config.params().items() if k not in named and v != usual[k]]
        recipe = [] if config.recipe == "fast" else [config.recipe]
        network = [config.network, Path(config.data).stem, f"{config.size}px", f"epochs={config.epochs}"]
        return " ".join([*network, *recipe, *own])


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended."""

    status: Status
    run_id: str | None = None
    unsynced: int = 0
    """Records that the tracking server still lacks."""
    metrics: dict[str, float] = field(default_factory=dict)
    """`best/...`, `selected/...` and `final/...`."""
    message: str = ""
    pages: list[str] = field(default_factory=list)
    """Addresses in MLflow's pages: the run, and the leaderboard; none without a server that has pages."""
    recorded: bool = True
    """Whether the run itself recorded its end; one that was killed could not."""

    def exit_code(self, *, offline: bool) -> int:
        """offline: no server is wanted, so none lacks anything."""
        if self.status.complete:
            return EXIT_UNSYNCED if self.unsynced and not offline else EXIT_DONE
        return EXIT_PREEMPTED if self.status is Status.PREEMPTED else EXIT_FAILED

    def write(self, output: Path) -> None:
        write_whole(output / RESULT, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, output: Path) -> Result | None:
        path = output / RESULT
        if not path.exists():
            return None
        held = json.loads(path.read_text("utf-8"))
        return cls(**held | {"status": Status(held["status"])})


def check_output(job: Job) -> None:
    """InputError if the output folder holds a run of another config."""
    if not (job.output / CONFIG).exists():
        return
    held = read_config(job.output)
    if held.digest() != job.config.digest():
        ours, theirs = job.config.params(), held.params()
        differs = ", ".join(f"{k}={theirs[k]} (not {ours[k]})" for k in ours if ours[k] != theirs[k])
        raise InputError(f"output={job.output} holds a run with {differs}: choose another folder")


def check_data(job: Job, digest: str) -> None:
    """InputError if the output folder holds a run on other data."""
    opened = trained_on(job.output)
    if opened.get("digest", digest) != digest:
        raise other_data(job.output, opened["digest"], digest)


def other_data(place: Path, before: str, now: str) -> InputError:
    return InputError(
        f"{shown(place)} was trained on other data (digest {before[:12]}, now {now[:12]}): bring those back, "
        "or train anew in another output folder"
    )


def claim_output(job: Job) -> None:
    """Make the output folder and write the config into it, unless that was done before; the result of an
    earlier, unfinished attempt goes."""
    path = job.output / CONFIG
    try:
        (job.output / RESULT).unlink(missing_ok=True)
        if not path.exists():
            job.output.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(job.config.model_dump(), indent=2) + "\n")
    except OSError as error:
        raise InputError(f"output={job.output} cannot be written: {error.strerror}") from None


def as_begun(job: Job) -> Job:
    """The job by the kernels that the run in its folder was begun with: others would round otherwise, and it
    would not end bit for bit where one that was never stopped does."""
    if not (job.output / CONFIG).exists():
        return job
    kernels = read_config(job.output).kernels
    return replace(job, config=job.config.model_copy(update={"kernels": kernels}))


def read_config(output: Path) -> Config:
    """Of the run in a folder. One from before there were others has torch's own kernels."""
    path = output / CONFIG
    try:
        return Config.model_validate({"kernels": "stock"} | json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        raise InputError(f"output={output} is not a run's folder: {path} is missing or damaged") from None
