"""A study's runs as a pandas frame, for notebooks."""

from __future__ import annotations

import pandas as pd

from imagenette.report.assemble import assemble
from imagenette.report.csv_tables import run_rows
from imagenette.report.reader import open_reader
from imagenette.tracking import environment


def runs(study: str) -> pd.DataFrame:
    """A study's finished runs, a row each: arm, its knobs, seed, run_id, the three test accuracies (shares in
    [0, 1]), seconds, and what they ran on. InputError if there is no such study."""
    tracked = open_reader(environment.tracking_uri(), environment.named_experiment()).study(study)
    return pd.DataFrame(run_rows(assemble(study, tracked.plan, tracked.runs)))
