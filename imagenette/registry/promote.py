"""Promotion: prove a run's model, register it with its evidence, let the gate decide who is champion."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagenette.errors import InputError, RunError
from imagenette.registry.address import CHAMPION, NAME
from imagenette.registry.candidates import METRICS, Candidate, named, proven, ranked
from imagenette.registry.gate import Entry, Gate, Verdict, judge
from imagenette.registry.lineage import opened
from imagenette.registry.versions import WITHDRAWN, Standing, Versions, as_entry
from imagenette.tracking.deliver import set_tags
from imagenette.tracking.fetch import fetched
from imagenette.tracking.fitness import SUMMARY

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

Say = Callable[[str], None]
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
    experiment: str = NAME,
    name: str = NAME,
    run_id: str | None = None,
    study: str | None = None,
    gate: Gate = "better",
    metric: str = METRICS[0],
    other_data: bool = False,
    dry_run: bool = False,
    say: Say = lambda line: None,
) -> Promotion:
    """Register the run (or the best of the study, or of the experiment) under `name`; it becomes `champion`
    if the gate lets it.

    Called again after it was killed anywhere, it goes on where it stopped. Raises InputError if the run
    cannot be promoted, RunError if the gate refuses it or the server is dead; each in one line.
    """
    with opened(tracking_uri) as client, _launched(client) as tell:
        versions = Versions(client, name)
        champion = _champion(versions, gate)
        if not dry_run:
            _mend(versions, say)
        run = named(client, run_id, metric) if run_id else None
        if run is None:
            digest = champion.evidence.data_digest if champion and not other_data else None
            queue = ranked(client, experiment, study=study, metric=metric, data_digest=digest)
            candidate = _first_proven(client, queue, metric, say)
        else:
            candidate = proven(client, run, metric)
        say(_introduce(candidate))
        known = _registered(versions, candidate, gate)
        if known is None:
            verdict = _judge(candidate, champion, gate, other_data=other_data)
            say(verdict.reason)
            if dry_run:
                message = f"would be registered as a version of {name}, and become its {CHAMPION}"
                return Promotion(
                    version=None, champion=champion.version if champion else None, message=message
                )
            known = _register(versions, candidate, verdict, gate, other_data=other_data)
        elif dry_run:
            message = f"is already version {known} of {name}"
            return Promotion(version=known, champion=champion.version if champion else None, message=message)
        standing = versions.settle()
        return tell(_ended(name, known, standing))


def rollback(*, tracking_uri: str | None = None, name: str = NAME, say: Say = lambda line: None) -> Promotion:
    """Withdraw the champion; the one before it takes its place, once it has proved that it works. RunError
    where there is none."""
    from imagenette.registry.model import open_folder

    with opened(tracking_uri) as client, _launched(client) as tell:
        versions = Versions(client, name)
        champion = versions.standing().champion
        if champion is None:
            raise RunError(f"{name} has no champion to roll back")
        heir = versions.standing(without={champion}).champion
        if heir is None:
            raise RunError(f"{name} has no version before champion {champion} to go back to")
        source = next(v.source for v in versions.all() if int(v.version) == heir)
        try:
            with fetched(client, source or "") as folder:
                open_folder(folder)
        except InputError as error:
            raise RunError(
                f"{name} version {heir}, which would follow champion {champion}: {error}"
            ) from None
        versions.withdraw(champion, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        say(f"version {champion} is withdrawn")
        return tell(_ended(name, heir, versions.settle()))


@contextmanager
def _launched(client: MlflowClient) -> Iterator[Callable[[Promotion], Promotion]]:
    """The run that `mlflow run` made for this command, if it did, says what came of it; and no fluent call
    adopts it."""
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)

    def tell(promotion: Promotion) -> Promotion:
        if run_id:
            set_tags(client, run_id, {"role": "promotion", "mlflow.note.content": promotion.message})
        return promotion

    try:
        yield tell
    except (InputError, RunError) as error:
        if run_id:
            set_tags(client, run_id, {"role": "promotion", "mlflow.note.content": str(error)})
        raise


def _champion(versions: Versions, gate: Gate) -> Entry | None:
    """The champion as the versions have it. RunError if the alias was set by hand to a version that says
    nothing of itself."""
    held = versions.aliases().get(CHAMPION)
    promoted = {int(v.version) for v in versions.all() if as_entry(v) is not None}
    if held is not None and held not in promoted and gate != "force":
        raise RunError(
            f"{versions.name}@{CHAMPION} is version {held}, which was registered by hand and has no evidence "
            "to compare with: --gate force takes its place"
        )
    history = versions.history()
    return history[-1] if history else None


def _mend(versions: Versions, say: Say) -> None:
    """Set aliases right that a killed promoter, or somebody's hand, left beside what the versions say."""
    before = versions.aliases().get(CHAMPION)
    after = versions.settle().champion
    if before != after:
        say(f"{CHAMPION} was {f'version {before}' if before else 'not set'}, and is version {after} again")


def _first_proven(client: MlflowClient, runs: Iterator[Run], metric: str, say: Say) -> Candidate:
    refused = None
    for run in runs:
        try:
            return proven(client, run, metric)
        except InputError as error:
            refused = refused or error
            say(str(error))
    assert refused is not None
    raise refused


def _introduce(candidate: Candidate) -> str:
    run, evidence = candidate.run, candidate.evidence
    return (
        f"run {run.info.run_id} ({run.info.run_name}): {evidence.metric} {evidence.value:.4f}; its model "
        f"loads, and its answers are those of training (shares differ by {candidate.difference:.0e} at most)"
    )


def _registered(versions: Versions, candidate: Candidate, gate: Gate) -> int | None:
    """The candidate's version, where it has one that still counts; forcing asks for a new one unless it is
    already champion. RunError if it was rolled back."""
    ours = [v for v in versions.all() if v.tags.get("model_id") == candidate.model.model_id and as_entry(v)]
    champion = versions.standing().champion
    for version in ours:
        if int(version.version) == champion or (gate != "force" and WITHDRAWN not in version.tags):
            return int(version.version)
    if ours and gate != "force":
        raise RunError(
            f"run {candidate.run.info.run_id} is version {ours[-1].version} of {versions.name}, which was "
            "rolled back: --gate force promotes it again"
        )
    return None


def _judge(candidate: Candidate, champion: Entry | None, gate: Gate, *, other_data: bool) -> Verdict:
    evidence = champion.evidence if champion else None
    verdict = judge(candidate.evidence, evidence, gate, other_data=other_data)
    if not verdict.allowed:
        assert champion is not None
        raise RunError(
            f"run {candidate.run.info.run_id} does not replace champion version {champion.version}: "
            f"{verdict.reason}"
        )
    return verdict


def _register(
    versions: Versions, candidate: Candidate, verdict: Verdict, gate: Gate, *, other_data: bool
) -> int:
    run, model = candidate.run, candidate.model
    tags = {key: run.data.tags[key] for key in _FROM_RUN if key in run.data.tags}
    tags |= {key: repr(value) for key, value in run.data.metrics.items() if key.startswith(SUMMARY)}
    tags |= candidate.evidence.to_tags()
    tags |= {
        "model_id": model.model_id,
        "config": json.dumps(run.data.params, sort_keys=True),
        "environment": candidate.environment,
        "gate": gate,
        "verdict": verdict.reason,
        "other_data": str(other_data).lower(),
    }
    version: ModelVersion = versions.register(
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
        f"Chosen by {evidence.metric} = {evidence.value:.4f}; {metrics['selected/test_accuracy']:.2%} of "
        f"{len(evidence.correct):,} test images right. Promoted because: {verdict.reason}.\n\n"
        f"```\n{tags.get('reproduce', '')}\n```\n"
    )


def _ended(name: str, version: int, standing: Standing) -> Promotion:
    before = f", version {standing.previous} is kept as previous" if standing.previous else ""
    if version == standing.champion:
        message = f"{name} version {version} is {CHAMPION}{before}"
    else:
        message = f"{name} version {version} is registered; {CHAMPION} is version {standing.champion}{before}"
    return Promotion(version=version, champion=standing.champion, message=message)
