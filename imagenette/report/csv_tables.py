"""A study's tables for computing: numbers with all their digits, a row an arm, a comparison, a run. Shares
are in [0, 1]; what is missing is empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imagenette.artifacts import as_cell
from imagenette.report.compare import Comparison
from imagenette.report.findings import Findings
from imagenette.report.study import Arm, Study
from imagenette.report.tables import compatible, device
from imagenette.results import BEST, TEST_ACCURACIES


def arms_csv(study: Study, findings: Findings) -> str:
    """A row an arm; accuracies and standard deviations are shares in [0, 1], empty where missing."""
    return _csv([_arm_numbers(arm, study) | _found_numbers(arm, findings) for arm in study.arms])


def _found_numbers(arm: Arm, findings: Findings) -> dict[str, Any]:
    parts, reached = findings.spreads.get(arm.name), findings.reached.get(arm.name)
    if parts is None:
        return {}
    return {
        "may_be_best": arm.name in findings.best,
        "best_in_share_of_draws": findings.chances.get(arm.name),
        "target": findings.target,
        "runs_to_target": reached.runs if reached else None,
        "epochs_to_target": reached.epochs if reached else None,
        "seconds_to_target": reached.seconds if reached else None,
        "sd_flips": parts.flips,
        "sd_seeds": parts.seeds,
        "sd_images": parts.images,
    }


def _arm_numbers(arm: Arm, study: Study) -> dict[str, Any]:
    row: dict[str, Any] = {
        "arm": arm.name,
        **arm.values,
        "n": len(arm.runs),
        "missing": "; ".join(arm.missing),
    }
    for metric in TEST_ACCURACIES:
        estimate = arm.estimate(metric)
        low, high = (estimate.interval.low, estimate.interval.high) if estimate.interval else (None, None)
        row |= {metric: estimate.mean, f"{metric} sd": estimate.sd}
        row |= {f"{metric} low": low, f"{metric} high": high, f"{metric} n": estimate.n}
    row |= {f"reference {key.removeprefix('reference/')}": value for key, value in arm.reference.items()}
    if BEST in arm.reference:
        row["reference compatible"] = compatible(arm, study.other_conditions).text
    for what in ("parameters", "weights_bytes", "images_per_second", "seconds"):
        row[what] = arm.mean(what)
    return row | {"device": device(arm).text}


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """A row for each arm but the baseline; differences are shares, arm minus baseline."""
    return _csv(
        [
            {
                "arm": each.arm,
                "baseline": each.baseline,
                "difference": each.value,
                "low": each.interval.low if each.interval else None,
                "high": each.interval.high if each.interval else None,
                "runs": each.runs[0],
                "baseline_runs": each.runs[1],
                "paired": each.paired,
                "se_seeds": each.seeds,
                "se_images": each.images,
                "p": each.p,
                "p_holm": each.p_corrected,
                "p_beyond_margin_holm": each.p_beyond,
                "verdict": each.verdict,
            }
            for each in comparisons
        ]
    )


def runs_csv(study: Study) -> str:
    return _csv(run_rows(study))


def run_rows(study: Study) -> list[dict[str, Any]]:
    """A row a run."""
    shown = ("data_digest", "commit", "device", "torch", "parameters", "weights_bytes", "reused_run")
    return [
        {
            "arm": arm.name,
            **arm.values,
            "seed": run.seed,
            "run_id": run.run_id,
            **{metric: run.share(metric) for metric in TEST_ACCURACIES},
            "test_images": run.test_images,
            "seconds": run.seconds,
            "images_per_second": run.images_per_second,
            **{tag: run.tags.get(tag) for tag in shown},
        }
        for arm in study.arms
        for run in arm.runs
    ]


def _csv(rows: list[dict[str, Any]]) -> str:
    import pandas as pd

    rows = [{column: as_cell(value) for column, value in row.items()} for row in rows]
    frame = pd.DataFrame(rows, columns=None if rows else ["arm"])
    return str(frame.convert_dtypes().to_csv(index=False))
