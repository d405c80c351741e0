"""A study's report, all of it, before it takes any form."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Self

from imagenette.report.compare import Comparison, compare, scores
from imagenette.report.conclusions import conclusions, with_our_seeds
from imagenette.report.findings import Findings
from imagenette.report.study import Study
from imagenette.report.style import SavedFigure
from imagenette.report.table import Table
from imagenette.report.tables import TABLES
from imagenette.results import BEST
from imagenette.stats import Spread

_MOST = 20  # arms whose missing runs are listed


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyReport:
    """What a report says of one study."""

    study: Study
    comparisons: list[Comparison]
    findings: Findings
    conclusions: list[str]
    tables: list[Table]
    published: StudyReport | None = None
    """The published numbers: single runs, compared unpaired."""
    figures: list[SavedFigure] = field(default_factory=list)
    address: str = ""
    """Of the parent run in MLflow's pages; empty without a server that has pages."""
    place: str = ""
    """` in experiment 'NAME'` where that is not the usual one."""

    @classmethod
    def of(cls, study: Study, published: Study | None = None, *, address: str = "", place: str = "") -> Self:
        """Everything but the figures."""
        comparisons = compare(study)
        findings = Findings.of(study, comparisons)
        made = (table(study, comparisons, findings) for table in TABLES.values())
        public = cls.of(published) if published else None
        if public:
            spread = Spread.of(list(scores(replace(study, metric=BEST)).values()))
            public = replace(public, conclusions=public.conclusions + with_our_seeds(public.study, spread))
        return cls(
            study=study,
            comparisons=comparisons,
            findings=findings,
            conclusions=conclusions(study, comparisons, findings),
            tables=[table for table in made if table],
            published=public,
            address=address,
            place=place,
        )

    @property
    def folder(self) -> str:
        """A name for its files, no other study's; also of its part of a page."""
        name = self.study.name
        kept = re.sub(r"[^A-Za-z0-9_-]", "-", name)
        return kept if kept == name else f"{kept[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

    @property
    def so_far(self) -> str:
        """How much of the study there is."""
        study = self.study
        done, planned = len(study.runs), study.planned
        count = f"{done} of {planned}" if planned > done else str(done)
        runs = f"{count} run{'s' * (count != '1')} finished"
        return f"{runs}; the study is {study.status}" if study.status not in ("", "finished") else runs

    @property
    def missing(self) -> list[str]:
        """What was planned and is not there, and why: a sentence an arm."""
        arms = [arm for arm in self.study.arms if arm.missing]
        named = [f"{arm.name}: {'; '.join(arm.missing)}." for arm in arms[:_MOST]]
        return named + [f"And runs of {len(arms) - _MOST} more arms."] * (len(arms) > _MOST)

    @property
    def provenance(self) -> dict[str, str]:
        """What all runs share, in words: data, commit, device, versions."""
        runs = self.study.runs
        tags = {"data": "data_digest", "commit": "commit", "device": "device", "torch": "torch"}
        found = {what: {run.tags.get(tag, "") for run in runs} - {""} for what, tag in tags.items()}
        shared = {what: values.pop() for what, values in found.items() if len(values) == 1}
        seeds = sorted({run.seed for run in runs if run.seed is not None})
        images = {run.test_images for run in runs if run.test_images}
        if len(images) == 1:
            shared["test images"] = f"{images.pop():,}"
        if seeds:
            shared["seeds"] = ", ".join(map(str, seeds))
        return {k: v[:12] if k in ("data", "commit") else v for k, v in shared.items()}
