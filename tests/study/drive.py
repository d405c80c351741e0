"""A whole `imagenette study` process, with stand-in trainings: python drive.py TOML PLAN-AS-JSON."""

import json
import sys
from pathlib import Path

from imagenette.study.definition import load
from imagenette.study.driver import Plan, run_study
from tests.study.study_helpers import STUB

if __name__ == "__main__":
    plan = json.loads(sys.argv[2])
    plan["runs"] = Path(plan["runs"])
    sys.exit(run_study(load(sys.argv[1]), Plan(command=STUB, **plan)))
