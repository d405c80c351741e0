"""What a soak looks for at its end: what was acknowledged and is not on the server, or is there twice, and
what lies around. Reads files, servers and /proc; starts and stops nothing."""

from __future__ import annotations

import json
import math
import socket
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState

from imagenette.errors import InputError, RunError
from imagenette.registry import load_known
from imagenette.registry.model import NEEDED, open_folder
from imagenette.registry.versions import Versions
from imagenette.study.queue import Queue
from imagenette.study.storage import open_storage, open_study
from imagenette.tracking.address import CHAMPION, NAME
from imagenette.tracking.client import pages
from imagenette.tracking.fetch import fetched
from imagenette.tracking.model import models_of
from imagenette.tracking.outbox import read_card, read_refused
from imagenette.tracking.runs import UID, get_run
from imagenette.training.job import Result

MARK = "IMAGENETTE_SOAK"
"""In the environment of all that a soak starts: its folder."""
GROWTH = {"serve": 300.0}
"""MB that a process may grow once it is settled, else 150. The service may get its first model only then;
twelve models loaded one after the other keep it within 130 MB."""
SETTLED = 60.0  # seconds of a process's life


@dataclass
class Found:
    """Each list is empty after a good soak; a line each."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """A command that never ended well, an answer that should not have been given."""


# -- what was acknowledged ---------------------------------------------------------------------------------


def check_run(client: MlflowClient, output: Path, found: Found, *, models: bool = True) -> int:
    """How many records of the folder's outbox were acknowledged; each must be on the server, and all of them
    must be acknowledged where the training said so. models: also open those that it logged."""
    card, result = read_card(output), Result.read(output)
    lines = (output / "outbox/records.jsonl").read_text("utf-8").splitlines()
    acked = output / "outbox/acked"
    count = int(acked.read_text("utf-8")) if acked.exists() else 0
    records = [json.loads(line) for line in lines[:count]]
    for seq, reason in read_refused(output):
        found.wrong.append(f"{output.name}: record {seq + 1} was refused: {reason}")
    if card.run_id is None:
        return 0
    run = get_run(client, card.run_id)
    if run is None:
        found.lost.append(f"{output.name}: run {card.run_id} is not there")
        return count
    if result and result.status.complete:
        epochs = [record["step"] for record in records if record["kind"] == "epoch"]
        wanted = json.loads((output / "config.json").read_text("utf-8"))["epochs"]
        if count != len(lines) or epochs != list(range(1, wanted + 1)):
            found.lost.append(f"{output.name}: {count} of {len(lines)} records acknowledged, epochs {epochs}")
        if run.info.status != "FINISHED":
            found.lost.append(f"{output.name}: run {run.info.run_id} is {run.info.status}")
    if count == len(lines) and models:
        _check_models(client, run, {r["name"] for r in records if r["kind"] == "model"}, found)
    _check_metrics(client, run, [r for r in records if r["kind"] in ("epoch", "result")], found)
    sent = {
        (r["folder"], Path(r["path"]).name): output / r["path"] for r in records if r["kind"] == "artifact"
    }
    for folder in {folder for folder, _ in sent}:
        there = {Path(a.path).name: a.file_size for a in client.list_artifacts(card.run_id, folder or None)}
        for (inside, name), local in sent.items():
            if inside == folder and there.get(name, -1) != local.stat().st_size:
                found.lost.append(f"{output.name}: artifact {folder}/{name} is not there as it was sent")
    return count


def _check_metrics(
    client: MlflowClient, run: Run, records: Sequence[Mapping[str, Any]], found: Found
) -> None:
    for key in sorted({key for record in records for key in record["metrics"]}):
        history = client.get_metric_history(run.info.run_id, key)
        for record in records:
            if key not in record["metrics"]:
                continue
            point, value = f"{run.info.run_name}: {key} at step {record['step']}", record["metrics"][key]
            here = [m for m in history if m.step == record["step"]]
            if not any(m.timestamp == record["timestamp"] and _same(m.value, value) for m in here):
                found.lost.append(point)
            if len(here) > 1 and record["kind"] == "epoch":
                found.doubled.append(f"{point} has {len(here)} values")


def _check_models(client: MlflowClient, run: Run, names: Iterable[str], found: Found) -> None:
    for name in names:
        logged = models_of(client, run, name)
        if len(logged) > 1:
            found.doubled.append(f"{run.info.run_name}: {len(logged)} models {name}")
        try:
            with fetched(client, logged[0].artifact_location, only=NEEDED) as folder:
                open_folder(folder)
        except (InputError, IndexError) as error:
            found.lost.append(f"{run.info.run_name}: model {name}: {error}")


def check_experiment(client: MlflowClient, experiment: str, found: Found) -> list[Run]:
    """All runs; each training's exactly once, and none as if it still trained."""
    ids = [client.get_experiment_by_name(experiment).experiment_id]
    runs: list[Run] = list(pages(lambda token: client.search_runs(ids, page_token=token)))
    for uid, times in Counter(run.data.tags.get(UID) for run in runs).items():
        if uid and times > 1:
            found.doubled.append(f"{times} runs of uid {uid}")
    found.wrong += [f"run {r.info.run_name} is still RUNNING" for r in runs if r.info.status == "RUNNING"]
    return runs


def check_study(runs: Sequence[Run], storage: str, name: str, cells: int, found: Found) -> None:
    """Each cell has exactly one COMPLETE trial and exactly one finished run, which the database names."""
    opened = open_storage(storage)
    rows = Queue(opened.engine, open_study(opened, name)).rows()
    trials = optuna.load_study(study_name=name, storage=opened).get_trials(states=[TrialState.COMPLETE])
    opened.engine.dispose()
    complete = Counter(trial.user_attrs.get("cell") for trial in trials)
    finished: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        about = run.data.tags.get("study"), run.data.tags.get("role"), run.info.status
        if about == (name, "trial", "FINISHED"):
            finished[run.info.run_name].append(run.info.run_id)
    if len(rows) != cells:
        found.lost.append(f"{name}: {len(rows)} cells of {cells}")
    for row in rows:
        if complete[row.cell] == 0 or row.run_id not in finished[row.cell]:
            found.lost.append(
                f"{name}, {row.cell}: {row.word}, {complete[row.cell]} trials, run {row.run_id}"
            )
        if complete[row.cell] > 1 or len(finished[row.cell]) > 1:
            runs_of = len(finished[row.cell])
            found.doubled.append(f"{name}, {row.cell}: {complete[row.cell]} trials, {runs_of} finished runs")


def check_registry(client: MlflowClient, promoted: Iterable[str], found: Found) -> int | None:
    """The champion's version, which loads; each promoted run is exactly one version."""
    versions = Versions(client, NAME)
    by_run = Counter(version.run_id for version in versions.all())
    found.lost += [f"promoted run {run} is no version" for run in promoted if not by_run[run]]
    found.doubled += [f"run {run} is {times} versions" for run, times in by_run.items() if times > 1]
    champion = versions.aliases().get(CHAMPION)
    latest = next((entry.version for entry in reversed(versions.history())), None)
    if champion != latest:
        found.lost.append(f"{CHAMPION} is version {champion}, not {latest}")
    try:
        if champion is not None:
            load_known(tracking_uri=client.tracking_uri)
    except (InputError, RunError) as error:
        found.lost.append(str(error))
    return champion


def check_report(folder: Path, studies: Iterable[str], found: Found) -> None:
    page, text = folder / "report.html", folder / "report.md"
    if not (page.exists() and page.read_text("utf-8").rstrip().endswith("</html>") and text.exists()):
        found.lost.append(f"the report in {folder.name} is not whole")
    else:
        said = text.read_text("utf-8")
        found.lost += [f"the report does not name study {name}" for name in studies if name not in said]


def check_answer(answer: Mapping[str, Any], classes: int) -> str:
    """What is wrong with a 200 of POST /predict?top=CLASSES for one picture; empty: nothing."""
    top = [one["top"] for one in answer["predictions"]]
    if [len({c["class"] for c in one}) for one in top] != [classes]:
        return f"{[len(one) for one in top]} classes in place of [{classes}]"
    total = math.fsum(c["share"] for c in top[0])
    return "" if abs(total - 1) < 1e-3 else f"shares that sum to {total}"


# -- what lies around --------------------------------------------------------------------------------------


def ours(folder: Path) -> Iterator[psutil.Process]:
    """Every living process that a soak in the folder started: by the mark in its environment, or by its place
    (PostgreSQL's write over their environment)."""
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARK) == str(folder) or process.name() == "postgres"
            if process.status() == psutil.STATUS_ZOMBIE or not marked:
                continue
            if process.environ().get(MARK) == str(folder) or Path(process.cwd()).is_relative_to(folder):
                yield process
        except (psutil.Error, OSError):
            continue  # it has ended, or is another user's


def check_leaks(folder: Path, temporary: Path, ports: Iterable[int], found: Found) -> None:
    """After everything was stopped: processes, listening ports, temporary files."""
    for process in ours(folder):
        found.leaked.append(f"process {process.pid}: {' '.join(process.cmdline())[:120]}")
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.leaked.append(f"port {port} still listens")
    found.leaked += [f"temporary file {path.name}" for path in sorted(temporary.iterdir())]


Sample = tuple[str, int, float, float]
"""Which part, process id, seconds of its life, resident MB."""


def memory(samples: Sequence[Sample], found: Found) -> list[dict[str, Any]]:
    """A row a part: most MB, and the slope of its settled processes, pooled. Growth past GROWTH is a leak."""
    lives: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for part, pid, age, mb in samples:
        lives[part, pid].append((age, mb))
    rows = []
    for part in sorted({part for part, _ in lives}):
        above = below = hours = growth = 0.0
        for (which, pid), points in lives.items():
            settled = [point for point in points if point[0] > SETTLED]
            if which != part or len(settled) < 3:
                continue
            age, mb = (statistics.fmean(values) for values in zip(*settled, strict=True))
            above += sum((a - age) * (m - mb) for a, m in settled)
            below += sum((a - age) ** 2 for a, _ in settled)
            hours += (settled[-1][0] - settled[0][0]) / 3600
            grown = max(m for _, m in settled[len(settled) // 2 :]) - max(
                m for _, m in settled[: len(settled) // 2]
            )
            growth = max(growth, grown)
            if grown > GROWTH.get(part, 150.0):
                found.leaked.append(
                    f"{part}, process {pid}, grew by {grown:.0f} MB in {settled[-1][0]:.0f} s"
                )
        most = max(mb for name, _, _, mb in samples if name == part)
        slope = 3600 * above / below if below else math.nan
        rows.append({"part": part, "most MB": round(most), "grew by, MB": round(growth), "MB an hour": slope})
        rows[-1] |= {"hours observed": round(hours, 2)}
    return rows


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
