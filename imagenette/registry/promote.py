"""Promotion: test a run's model, register it with its evidence, let the gate decide which version is
champion."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagenette.errors import InputError, RunError
from imagenette.registry.candidates import METRICS, Candidate, Search, examine, name_of, named
from imagenette.registry.gate import Entry, Gate, Verdict, judge
from imagenette.registry.versions import Standing, Versions
from imagenette.results import SELECTED, on_lines, summary_of
from imagenette.tracking.address import CHAMPION, NAME, Address
from imagenette.tracking.client import opened
from imagenette.tracking.experiments import elsewhere, look_in
from imagenette.tracking.fetch import fetched
from imagenette.tracking.outer_run import outer_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Report = Callable[[str], None]
_FROM_RUN = (
    *("study", "trial", "arm", "seed", "depth", "config_digest", "commit", "commit_dirty", "reproduce"),
    *("parameters", "selection"),
)
"""Tags of the run that the version repeats, so that it can be read where the run is not."""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """How a promotion ended."""

    version: int | None
    """The run's version; None where it was not registered."""
    champion: int | None
    message: str

    @property
    def promoted(self) -> bool:
        return self.version is not None and self.version == self.champion


def promote(
    *,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    name: str | None = None,
    run_id: str | None = None,
    study: str | None = None,
    gate: Gate = "better",
    metric: str = METRICS[0],
    other_data: bool = False,
    dry_run: bool = False,
    report: Report = lambda line: None,
) -> Promotion:
    """Register the run (or the best of the study, or of all) under `name`; it becomes `champion` if the gate
    lets it.

    experiment: see `look_in`. name: None = that of the run's data, see `name_of`; without a run and a study
    to say which data are meant, those of NAME's champion, else Imagenette, else the only ones there are.
    Called again after it was killed anywhere, it goes on where it stopped. Raises InputError if the run
    cannot be promoted, RunError if the gate refuses it or the server is dead; each in one line.
    """
    Address.of_name(name or NAME)
    with opened(tracking_uri) as client, outer_run(client, "promotion") as describe:
        run = named(client, run_id, metric) if run_id else None
        runs = Search(client=client, places=look_in(client, experiment), study=study, metric=metric)
        name, digest = _name_and_data(client, name, run, runs, gate, other_data=other_data)
        versions = Versions(client, name)
        champion = _champion(versions, gate)
        why = f"of {name}, which was rolled back: --gate force promotes it again"
        refused = {
            entry.run_id: f"run {entry.run_id} is version {entry.version} {why}"
            for entry in (_withdrawn(versions) if gate != "force" else [])
        }
        if run is not None:
            if run.info.run_id in refused:
                raise RunError(refused[run.info.run_id])
            candidate = examine(client, run, metric)
        else:
            candidate = _first_that_works(client, runs.ranked(digest), metric, refused, report)
        report(_summary(client, candidate))
        reigning = champion is not None and champion.model_id == candidate.model.model_id
        version = champion.version if champion and reigning else None
        former = champion.evidence if champion else None
        verdict = judge(candidate.evidence, former, gate, other_data=other_data)
        if version is None and not verdict.allowed:
            assert champion is not None
            if not dry_run:
                _mend(versions, report)
            what = f"run {candidate.run.info.run_id} does not replace champion version {champion.version}"
            raise RunError(f"{what}: {verdict.reason}")
        if version is None:
            report(verdict.reason)
        if dry_run:
            would = f"would be registered as a version of {name}, and become its {CHAMPION}"
            message = f"is {name} version {version}, the {CHAMPION}" if version else would
            held = champion.version if champion else None
            return Promotion(version=version, champion=held, message=message)
        if version is None:
            version = _register(versions, candidate, verdict, gate, other_data=other_data)
        versions.link(candidate.model.model_id, version)
        return _ended(describe, name, version, versions.settle())


def rollback(
    *, tracking_uri: str | None = None, name: str = NAME, report: Report = lambda line: None
) -> Promotion:
    """Withdraw the champion; the one before it takes its place, once its self-test passes. RunError
    where there is none."""
    from imagenette.registry.model import NEEDED, open_folder

    Address.of_name(name)
    with opened(tracking_uri) as client, outer_run(client, "promotion") as describe:
        versions = Versions(client, name)
        _champion(versions, "better")  # refuses where the alias was set by hand to a foreign version
        begun = versions.aliases().get(CHAMPION)
        if begun in [entry.version for entry in _withdrawn(versions)]:
            report(f"version {begun} is withdrawn already; going on with that")
            standing = versions.settle()
            return _ended(describe, name, standing.champion or 0, standing)
        *_, heir, champion = [None, None, *versions.history()]
        if champion is None:
            raise RunError(f"{name} has no champion to roll back")
        if heir is None:
            raise RunError(f"{name} has no version before champion {champion.version} to go back to")
        try:
            with fetched(client, heir.source, only=NEEDED) as folder:
                open_folder(folder)
        except InputError as error:
            which = f"{name} version {heir.version}, which would follow champion {champion.version}"
            raise RunError(f"{which}: {error}") from None
        # The champion goes, and so does each version that would now take its place without ever having been
        # champion: it only lost a race. What is promoted meanwhile stays.
        newest = max(entry.version for entry in versions.promoted())
        while heir.version != (last := versions.history()[-1]).version <= newest:
            versions.withdraw(last.version)
            report(f"version {last.version} is withdrawn")
        return _ended(describe, name, heir.version, versions.settle())


def _name_and_data(
    client: MlflowClient, name: str | None, run: Run | None, runs: Search, gate: Gate, *, other_data: bool
) -> tuple[str, str | None]:
    """The registered model's name, and the digest of the data that runs are taken from; None: of any."""
    if run is None and (name or not runs.study):
        champion = _champion(Versions(client, name or NAME), gate)
        if champion is not None:
            return name or NAME, None if other_data else champion.evidence.data_digest
    if run is None and not other_data:
        return runs.data_meant(name)
    if name is None:
        name = name_of(client, run or next(runs.ranked()))
    return name, None


def _champion(versions: Versions, gate: Gate) -> Entry | None:
    """The champion as the versions have it. RunError if the alias was set by hand to a version that
    was not promoted."""
    held = versions.aliases().get(CHAMPION)
    promoted = {entry.version for entry in versions.promoted()}
    if held is not None and held not in promoted and gate != "force":
        raise RunError(
            f"{versions.name}@{CHAMPION} is version {held}, which was registered by hand and has no evidence "
            "to compare with: --gate force takes its place"
        )
    history = versions.history()
    return history[-1] if history else None


def _withdrawn(versions: Versions) -> list[Entry]:
    """Versions that were rolled back and whose runs were not promoted again since."""
    latest = {entry.run_id: entry for entry in versions.promoted()}
    return [entry for run, entry in latest.items() if run and entry.withdrawn]


def _mend(versions: Versions, report: Report) -> None:
    """Set aliases right where a killed promoter, or somebody by hand, left them wrong."""
    before = versions.aliases().get(CHAMPION)
    after = versions.settle().champion
    if before != after:
        report(f"{CHAMPION} was {f'version {before}' if before else 'not set'}, and is version {after} again")


def _first_that_works(
    client: MlflowClient, runs: Iterator[Run], metric: str, refused: Mapping[str | None, str], report: Report
) -> Candidate:
    """refused: run id -> why that run is not to be examined. Raises the first run's InputError if none
    works."""
    first: InputError | None = None
    for run in runs:
        try:
            if run.info.run_id in refused:
                raise InputError(refused[run.info.run_id])
            return examine(client, run, metric)
        except InputError as error:
            first = first or error
            report(str(error))
    assert first is not None
    raise first


def _summary(client: MlflowClient, candidate: Candidate) -> str:
    run, evidence = candidate.run, candidate.evidence
    place = elsewhere(client.get_experiment(run.info.experiment_id).name)
    return (
        f"run {run.info.run_id} ({run.info.run_name}){place}: {evidence.metric} {evidence.value:.4f}; its "
        "model loads, and its answers are those of training (shares differ by "
        f"{candidate.difference:.0e} at most)"
    )


def _register(
    versions: Versions, candidate: Candidate, verdict: Verdict, gate: Gate, *, other_data: bool
) -> int:
    run, model = candidate.run, candidate.model
    tags = {key: run.data.tags[key] for key in _FROM_RUN if key in run.data.tags}
    tags |= {key: repr(value) for key, value in summary_of(run.data.metrics).items()}
    tags |= candidate.evidence.to_tags()
    tags |= {
        "model_id": model.model_id,
        "config": json.dumps(run.data.params, sort_keys=True),
        "environment": candidate.environment,
        "gate": gate,
        "verdict": verdict.reason,
        "other_data": str(other_data).lower(),
    }
    version = versions.register(
        source=model.artifact_location,
        run_id=run.info.run_id,
        model_id=model.model_id,
        tags=tags,
        description=_describe(candidate, verdict),
    )
    return int(version.version)


def _describe(candidate: Candidate, verdict: Verdict) -> str:
    """Markdown, for MLflow's page of the version."""
    run, evidence = candidate.run, candidate.evidence
    tags, metrics = run.data.tags, run.data.metrics
    dirty = " with changes that were not committed" if tags.get("commit_dirty") == "true" else ""
    commit = f"commit `{tags['commit'][:12]}`{dirty}" if "commit" in tags else "no commit known"
    return (
        f"**{run.info.run_name}**, run `{run.info.run_id}`, study {tags.get('study', 'none')}, {commit}.\n\n"
        f"Chosen by {evidence.metric} = {evidence.value:.4f}; {metrics[SELECTED]:.2%} of "
        f"{len(evidence.correct):,} test images right. Promoted because: {verdict.reason}.\n\n"
        f"```\n{on_lines(tags.get('reproduce', ''))}\n```\n"
    )


def _ended(describe: Report, name: str, version: int, standing: Standing) -> Promotion:
    before = f", version {standing.previous} is kept as previous" if standing.previous else ""
    if version == standing.champion:
        message = f"{name} version {version} is {CHAMPION}{before}"
    else:
        message = f"{name} version {version} is registered; {CHAMPION} is version {standing.champion}{before}"
    describe(message)
    return Promotion(version=version, champion=standing.champion, message=message)
