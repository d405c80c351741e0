"""`imagenette study`: one study on this machine, from its definition to its last cell.

definition -> checked against the data and against what the database holds -> rows -> workers, who do the
rest; meanwhile here: the view, the parent run in MLflow, dead workers replaced, lost cells freed. Several
machines may each run this on the same study. Only drivers and trainings write to MLflow; workers look whether
it answers.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from imagenette.errors import EXIT_DONE, EXIT_FAILED, EXIT_PREEMPTED, EXIT_UNSYNCED, RunError
from imagenette.processes import cores, follow_parent, place, stop_signals
from imagenette.results import Status
from imagenette.study.checks import check_data, check_facts, check_same, facts, planned
from imagenette.study.crew import Crew, share_out, visible_gpus
from imagenette.study.definition import Definition
from imagenette.study.ledger import Ledger, StaleClaims
from imagenette.study.page import Page
from imagenette.study.queue import Queue, Row
from imagenette.study.show import missing_line, watching
from imagenette.study.start import Plan, announce, open_parent, order, reuse
from imagenette.study.storage import Patience, in_one_line, open_storage, open_study
from imagenette.study.trials import Trials
from imagenette.study.worker import Order
from imagenette.tracking.environment import has_outer_run
from imagenette.tracking.outbox import count_lacking

__all__ = ["Plan", "run_study"]

GLANCE = 0.5  # seconds between two looks at the rows; up to 2 where a look takes long


def run_study(definition: Definition, plan: Plan) -> int:
    """Run or resume; the exit code. InputError before anything is made or changed."""
    if has_outer_run():
        follow_parent(signal.SIGTERM)  # `mlflow run` leaves its child running when it is stopped
    shares = share_out(plan.workers, cores=cores(), gpus=visible_gpus())
    digests = check_data(definition, shares)
    storage = open_storage(plan.storage)
    with in_one_line(), stop_signals() as stopping:
        study_id = open_study(storage, definition.name)
        queue = Queue(storage.engine, study_id)
        check_same(definition, queue.rows())
        record = queue.open_record(definition.name, facts(definition))
        check_facts(definition, record)
        queue.fill(planned(definition))
        if plan.retry_failed:
            queue.retry_failed()
        ledger = Ledger(
            queue=queue,
            trials=Trials(storage, study_id, search=definition.search),
            objective=definition.objective,
            patience=Patience(lambda: bool(stopping)),
        )
        ledger.patience(lambda: ledger.trials.name_objective(definition.objective))
        folder = plan.runs.resolve() / f"{definition.name}-{record.uid[:8]}"
        parent = open_parent(definition, plan, record, folder, ledger)
        drive = Drive(definition, plan, ledger, Page(definition, parent, folder), lambda: bool(stopping))
        try:
            drive.look()
            reuse(ledger, parent, digests)
            announce(definition, plan, queue.rows(), folder, page=parent.page)
            drive.run([order(definition, plan, share, parent, folder) for share in shares], folder)
        except RunError as error:  # a server stayed away; what is done is done, and the rest can go on
            print(f"imagenette: {error}", file=sys.stderr)
            drive.broken = True
        return drive.end()


@dataclass
class Drive:
    """A study under way on this machine."""

    definition: Definition
    plan: Plan
    ledger: Ledger
    page: Page
    stop: Callable[[], bool]
    rows: list[Row] = field(default_factory=list)
    """As they were seen last."""
    broken: bool = False
    """Whether a server stayed away."""

    def run(self, orders: Sequence[Order], folder: Path) -> None:
        """Until every cell has ended, or somebody asks to stop, or no worker can be kept alive."""
        claims = StaleClaims(self.plan.grace)
        with watching(self.definition.name, objective=self.definition.objective) as view:
            self.look()
            view.update(self.rows)
            left = any(not row.ended for row in self.rows)
            with Crew.of(orders if left else [], folder) as crew:
                while True:
                    began = time.monotonic()
                    self.look()
                    took = time.monotonic() - began
                    view.update(self.rows, workers_alive=crew.alive)
                    self.record_failures()
                    self.page.refresh(self.rows)
                    if all(row.ended for row in self.rows) or self.stop() or crew.over:
                        break
                    self.ledger.take_back(claims)
                    crew.mend()
                    time.sleep(max(GLANCE, min(20 * took, 2.0)))
                crew.stop()
            self.ledger.take_back(claims)  # of workers that had to be killed
            self.ledger.reconcile()
            self.look()
            self.record_failures(everywhere=True)
            self.recount()
            view.update(self.rows, workers_alive=0)

    def look(self) -> None:
        self.rows = self.ledger.patience(self.ledger.queue.rows)

    def record_failures(self, *, everywhere: bool = False) -> None:
        """Have MLflow know why a training failed that could not record it itself: those of this machine,
        whose folders are here; at the end all."""
        here = place()
        for row in self.rows:
            if row.state != Status.FAILED or row.marked or not (everywhere or row.place == here):
                continue
            run_id = self.page.parent.record_failure(
                name=row.cell,
                arm=row.arm,
                seed=str(row.values.get("seed", self.definition.seeds[0])),
                trial=row.trial,
                reason=row.reason or "unknown",
                output=Path(row.output) if row.output and row.place == here else None,
                run_id=row.run_id,
                uid=f"{self.page.parent.uid}:{row.cell}:{row.attempt}",
            )
            if run_id is None:  # the server is away: later
                return
            self.ledger.patience(partial(self.ledger.queue.amend, row, marked=1, run_id=run_id))

    def recount(self) -> None:
        """What `imagenette sync` has sent since a run ended is no longer missing."""
        for number, row in enumerate(self.rows):
            output = Path(row.output) if row.unsynced and row.output else None
            if output and output.is_dir() and not count_lacking(output):
                self.ledger.patience(partial(self.ledger.queue.amend, row, unsynced=0))
                self.rows[number] = replace(row, unsynced=0)

    def end(self) -> int:
        """Close the parent run, print what is missing, and give the exit code."""
        rows, page = self.rows, self.page
        if rows and not self.broken and all(row.state.complete for row in rows):
            status, code = Status.FINISHED, EXIT_DONE
        elif self.stop() and not (rows and all(row.ended for row in rows)):
            status, code = Status.PREEMPTED, EXIT_PREEMPTED
        else:
            status, code = Status.FAILED, EXIT_FAILED
        if not rows:  # nothing is known, so nothing is said
            return code
        last = missing_line(self.definition.name, rows, command=self.plan.again)
        elsewhere = any(row.state == Status.RUNNING and row.place != place() for row in rows)
        known = page.refresh(rows, now=True) if elsewhere else page.end(rows, status, last if code else "")
        unsynced = [row for row in rows if row.unsynced and row.state != Status.FAILED]
        if code == EXIT_DONE and (unsynced or not known):
            folders = " ".join(sorted({f"{Path(row.output or '').parent} on {row.host}" for row in unsynced}))
            remedy = f"`imagenette sync DIR` sends what is in {folders}" if unsynced else "run it again"
            print(f"imagenette: the tracking server lacks records of this study: {remedy}", file=sys.stderr)
            code = EXIT_UNSYNCED
        print(f"imagenette: {last}" if code else last, file=sys.stderr)
        if page.parent.page:
            print(f"its runs: {page.parent.page}", file=sys.stderr)
        return code
