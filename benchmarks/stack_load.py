"""Workers that log through the stack's MLflow at a steady rate; what it cost, and whether anything was lost.

    python benchmarks/stack_load.py --password-file docker/secrets/password --json FILE

Each worker is a process with a kept connection: it opens a run, then makes the two calls that a training
makes for each epoch (a batch of ten metrics, the heartbeat's tag), and ends the run after fifty epochs for
the next. Calls start by the clock, not when the last one has been answered, and a call's time counts from
when it should have started, so calls that waited for a stalled server count in full. Afterwards every
acknowledged metric is read back.
"""

from __future__ import annotations

import base64
import http.client
import json
import multiprocessing
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import _common

METRICS = [f"{split}/{name}" for split in ("train", "holdout", "test") for name in ("loss", "accuracy")]
METRICS += ["lr", "speed/images_per_second", "speed/epoch_seconds", "system/memory_gb"]
EPOCHS = 50
WARM_UP = 5.0  # seconds in which calls are made and not counted: connections, caches, passwords checked once


@dataclass
class Written:
    """What one worker saw."""

    seconds: list[float] = field(default_factory=list)
    """From when each call should have started to its answer."""
    runs: dict[str, int] = field(default_factory=dict)
    """Acknowledged epochs of each run."""
    errors: list[str] = field(default_factory=list)


class Client:
    """MLflow's REST API over one kept connection."""

    def __init__(self, uri: str, password: str) -> None:
        self._address = urlsplit(uri)
        pair = base64.b64encode(f"imagenette:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/json"}
        self._connect()

    def _connect(self) -> None:
        assert self._address.hostname
        self._http = http.client.HTTPConnection(self._address.hostname, self._address.port, timeout=60)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        try:
            text = None if body is None else json.dumps(body)
            self._http.request(method, f"/api/2.0/mlflow/{path}", body=text, headers=self._headers)
            answer = self._http.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            self._connect()
            raise
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:200]!r}")
        return json.loads(content)


def write(
    uri: str, password: str, experiment: str, rate: float, seconds: float, worker: int, ready: Any, out: Any
) -> None:
    """One worker's process. rate: calls a second. ready: passed once all workers have started."""
    client, written = Client(uri, password), Written()
    run, epoch, calls = "", 0, 0
    ready.wait()
    until = time.time() + WARM_UP + seconds
    due = time.time() + worker / 8 / rate
    counted = due + WARM_UP
    while max(due, time.time()) < until:  # a server that is too slow ends it with fewer calls
        time.sleep(max(0.0, due - time.time()))
        try:
            if not run:
                body = {
                    "experiment_id": experiment,
                    "start_time": int(1000 * time.time()),
                    "run_name": f"load-{worker}",
                }
                run, epoch = client("POST", "runs/create", body)["run"]["info"]["run_id"], 0
                written.runs[run] = 0
            elif epoch == EPOCHS:
                client("POST", "runs/update", {"run_id": run, "status": "FINISHED"})
                run = ""
            elif calls % 2:
                client("POST", "runs/set-tag", {"run_id": run, "key": "heartbeat", "value": str(calls)})
            else:
                now = int(1000 * time.time())
                epoch += 1
                batch = [{"key": key, "value": epoch / 7, "timestamp": now, "step": epoch} for key in METRICS]
                client("POST", "runs/log-batch", {"run_id": run, "metrics": batch})
                written.runs[run] += 1
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            written.errors.append(f"{type(error).__name__}: {error}"[:200])
        if due > counted:
            written.seconds.append(time.time() - due)
        calls += 1
        due += 1 / rate
    out.put(asdict(written))


def lost(client: Client, runs: dict[str, int]) -> int:
    """Acknowledged metrics that are not there, once each."""
    missing = 0
    for run, epochs in runs.items():
        for key in METRICS:
            path = f"metrics/get-history?run_id={run}&metric_key={key}&max_results=1000"
            steps = [int(m["step"]) for m in client("GET", path).get("metrics", [])]
            missing += len(set(range(1, epochs + 1)) - set(steps)) + (len(steps) - len(set(steps)))
    return missing


def measure(uri: str, password: str, *, workers: int, rate: float, seconds: float) -> dict[str, Any]:
    """rate: calls a second, of all workers together."""
    client = Client(uri, password)
    name = f"load {time.strftime('%Y-%m-%d %H:%M:%S')}"
    experiment = client("POST", "experiments/create", {"name": name})["experiment_id"]
    context = multiprocessing.get_context("spawn")
    where, out, ready = (uri, password, experiment), context.Queue(), context.Barrier(workers + 1)
    work = [
        context.Process(target=write, args=(*where, rate / workers, seconds, index, ready, out))
        for index in range(workers)
    ]
    for process in work:
        process.start()
    ready.wait(timeout=120)
    began = time.time() + WARM_UP
    written = [out.get(timeout=seconds + 120) for _ in work]
    took = time.time() - began
    for process in work:
        process.join()
    times = sorted(time for one in written for time in one["seconds"])
    runs = {run: epochs for one in written for run, epochs in one["runs"].items()}
    errors = [error for one in written for error in one["errors"]]
    return {
        "workers": workers,
        "asked_calls_per_second": rate,
        "seconds": round(took, 1),
        "calls": len(times),
        "calls_per_second": round(len(times) / took, 1),
        "p50_ms": round(1000 * times[len(times) // 2], 1),
        "p99_ms": round(1000 * times[int(0.99 * len(times))], 1),
        "max_ms": round(1000 * times[-1], 1),
        "errors": len(errors),
        "first_errors": errors[:3],
        "runs": len(runs),
        "metrics_acknowledged": sum(runs.values()) * len(METRICS),
        "metrics_lost_or_doubled": lost(Client(uri, password), runs),
    }


def main() -> None:
    parser = _common.parser(__doc__)
    parser.add_argument("--uri", default="http://127.0.0.1:5000")
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=40, help="calls a second of all workers together")
    parser.add_argument("--seconds", type=float, default=300)
    given = parser.parse_args()
    facts = _common.about("mlflow", seeds=[])
    password = given.password_file.read_text("utf-8").strip()
    figures = measure(given.uri, password, workers=given.workers, rate=given.rate, seconds=given.seconds)
    print(json.dumps(figures, indent=2))
    _common.save(given.json, facts, **figures)


if __name__ == "__main__":
    main()
