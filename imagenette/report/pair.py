"""Two runs, two arms, or one of each: what differs between them, by how much, and on which images.

The figures are those of a study's report, for one comparison. The server alone is asked; the data set is for
contact sheets.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagenette.config import KNOBS, OPERATIONAL
from imagenette.errors import InputError, hide_secrets
from imagenette.report.assemble import complain, in_short, shared_metric
from imagenette.report.compare import Comparison, compare, scores
from imagenette.report.conclusions import limits, verdict
from imagenette.report.pair_images import Differing, Images, images_of
from imagenette.report.reader import Reader, open_reader
from imagenette.report.sides import Side, find_sides
from imagenette.report.study import Arm, Study
from imagenette.results import TEST_ACCURACIES
from imagenette.stats import Spread
from imagenette.tracking import environment

_LEFT_OUT = {*OPERATIONAL, "seed", "data"}
"""Knobs that are no difference: both sides are on the same data, whatever it is called."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two sides, compared."""

    a: Side
    b: Side
    metric: str
    """The accuracy that they are compared by."""
    comparison: Comparison
    """A against B. Its p is of this comparison alone: nothing corrects it."""
    knobs: dict[str, tuple[str | None, str | None]]
    """Those that differ, among those that all runs of each side share, without the seed; None = not
    recorded."""
    notes: tuple[str, ...]
    """What stands behind the sentence, what does not, and what is odd."""
    images: Images | None
    """None without predictions of the same images on both sides."""

    @property
    def sentence(self) -> str:
        """`weight_decay=0.01 is worse than weight_decay=0.0005 by 4.6 points (2.0 to 7.2 for new seeds and
        images; p = 0.01).`"""
        return verdict(self.comparison)

    @property
    def alike(self) -> str:
        """What may be said of the knobs where none differs."""
        seeds = [[run.seed for run in side.arm.runs] for side in (self.a, self.b)]
        if max(map(len, seeds)) > 1:
            return "No knob differs that all runs of each share."
        if seeds[0] == seeds[1]:
            return "No knob differs, nor does the seed."
        return f"They differ in their seed alone: {seeds[0][0]} and {seeds[1][0]}."

    def sheet(self, path: str | Path, *, data: str | None = None) -> Path:
        """Draw the images on which they differ most, with both answers, into a PNG.

        data: a folder or archive that holds the data set; else it is looked for where the runs had it.
        NoPicturesError where it is not there; InputError where the file cannot be written.
        """
        from imagenette.report.contact_sheet import draw_sheet

        runs = (run for side in (self.a, self.b) for run in side.arm.runs)
        sources = [data] if data else list(dict.fromkeys(run.params.get("data", "") for run in runs))
        names, digest = (self.a.arm.name, self.b.arm.name), self.a.data_digest
        return draw_sheet(self.images, Path(path), names=names, digest=digest, sources=sources)

    def to_json(self) -> dict[str, Any]:
        """Everything, with shares in [0, 1]; None is what is not known. Strict JSON, without passwords."""
        found, images = self.comparison, self.images
        whole = {
            "a": _side_json(self.a),
            "b": _side_json(self.b),
            "data_digest": self.a.data_digest,
            "knobs": {knob: {"a": ours, "b": theirs} for knob, (ours, theirs) in self.knobs.items()},
            "metric": self.metric,
            "difference": found.value,
            "low": found.interval.low if found.interval else None,
            "high": found.interval.high if found.interval else None,
            "p": found.p,
            "verdict": found.verdict if found.p is not None else None,
            "paired": found.paired,
            "se_seeds": found.seeds,
            "se_images": found.images,
            "sentence": self.sentence,
            "notes": list(self.notes),
            "images": images and _images_json(images),
        }
        hidden: dict[str, Any] = _without_passwords(whole)
        return hidden


def compare_runs(a: str, b: str, *, tracking_uri: str | None = None, experiment: str | None = None) -> Pair:
    """Compare A with B; each is a run's id (or its first six characters) or name, `champion`, `NAME@ALIAS`,
    `NAME/VERSION`, or `STUDY:ARM`.

        from imagenette import compare
        pair = compare("weight-decay:weight_decay=0.01", "weight-decay:weight_decay=0.0005")
        print(pair.sentence)
        pair.sheet("differ.png")

    tracking_uri: else MLFLOW_TRACKING_URI's; experiment: else MLFLOW_EXPERIMENT_NAME's, else all.
    InputError where either is not there, is ambiguous, has not finished, or is on other data than the other;
    RunError where the server does not answer.
    """
    reader = open_reader(tracking_uri, experiment or environment.named_experiment())
    one, other = find_sides(reader, a, b)
    base, arm = other.arm, one.arm
    study = Study(name="", title="", arms=(base, arm), baseline=base, metric=shared_metric((base, arm), base))
    spread = None
    if one.study and one.study is other.study and one.study.metric == study.metric:
        spread = Spread.of(list(scores(one.study).values()))
    found = compare(study, spread=spread)
    if not found:
        known = (f"{s.arm.name} has {_accuracies(s.arm) or 'none'}" for s in (one, other))
        raise InputError(f"no accuracy is known of both: {', '.join(known)}")
    odd: list[str] = []
    complain([arm, base], None, odd)
    for each in (arm, base):
        odd += [f"Not there of {each.name}: {'; '.join(each.missing)}."] if each.missing else []
    return Pair(
        a=one,
        b=other,
        metric=study.metric,
        comparison=found[0],
        knobs=_knobs(arm, base),
        notes=(*limits(study, found), "One comparison: p is not corrected for any other.", *odd),
        images=_images(reader, study, arm, base),
    )


def _accuracies(arm: Arm) -> str:
    return ", ".join(metric for metric in TEST_ACCURACIES if arm.shares(metric))


def _knobs(arm: Arm, base: Arm) -> dict[str, tuple[str | None, str | None]]:
    differing: dict[str, tuple[str | None, str | None]] = {}
    for knob in KNOBS:
        ours, theirs = (
            {in_short(text) if (text := run.params.get(knob)) is not None else None for run in each.runs}
            for each in (arm, base)
        )
        if knob not in _LEFT_OUT and len(ours) == len(theirs) == 1 and ours != theirs:
            differing[knob] = (ours.pop(), theirs.pop())
    return differing


def _images(reader: Reader, study: Study, arm: Arm, base: Arm) -> Images | None:
    """From the runs of either that `compare` paired: those of the images that most runs are of."""
    usable = {each.name: [r for r in each.runs if r.right(study.metric) is not None] for each in (arm, base)}
    most = Counter(run.images for runs in usable.values() for run in runs).most_common(1)
    told = [[run for run in usable[each.name] if run.images == most[0][0]] for each in (arm, base)]
    if not all(told):
        return None
    read = [[reader.answers(run) for run in runs] for runs in told]
    ours, theirs = ([answers for answers, _ in side] for side in read)
    return images_of(ours, theirs, study.metric, read[0][0][1] | read[1][0][1])


def _without_passwords(value: Any) -> Any:
    """Text by text: in JSON as a whole, a password could reach beyond its quotes."""
    if isinstance(value, dict):
        return {key: _without_passwords(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_passwords(each) for each in value]
    return hide_secrets(value) if isinstance(value, str) else value


def _side_json(side: Side) -> dict[str, Any]:
    accuracies = {}
    for metric in TEST_ACCURACIES:
        found = side.arm.estimate(metric)
        low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
        accuracies[metric] = {"n": found.n, "mean": found.mean, "sd": found.sd, "low": low, "high": high}
    runs = [
        {"run_id": run.run_id, "name": run.name, "seed": run.seed, "test_images": run.test_images}
        for run in side.arm.runs
    ]
    study = side.study.name if side.study else None
    return {"name": side.arm.name, "study": study, "runs": runs, "accuracies": accuracies}


def _images_json(images: Images) -> dict[str, Any]:
    return {
        "both_right": images.both,
        "only_a_right": images.only_a,
        "only_b_right": images.only_b,
        "neither_right": images.neither,
        "differing": [_differing_json(image, images) for image in images.differing],
    }


def _differing_json(image: Differing, images: Images) -> dict[str, Any]:
    def said(answer: Any) -> dict[str, Any]:
        return {
            "right": answer.right,
            "predicted": answer.predicted,
            "label": images.labels.get(answer.predicted, answer.predicted),
            "votes": answer.votes,
            "share": answer.share,
        }

    label = images.labels.get(image.label, image.label)
    return {"image": image.name, "class": image.label, "label": label, "a": said(image.a), "b": said(image.b)}
