"""Half an hour of everything on one `imagenette server`, whose parts are killed at random; then: is anything
lost, there twice, or left behind?

    python benchmarks/soak.py --minutes 30 --seed 1 --json FILE

Trainings, studies, promotions, reports and requests go on side by side, each with the same command again
where a kill cut it short, as the documentation asks of a user. The seed gives kinds, victims and moments of
the kills; what they meet is the machine's. Only processes that carry the soak's own mark are touched.
"""

from __future__ import annotations

import io
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import _aftermath as aftermath
import _common
import httpx
import psutil
from PIL import Image

from imagenette.tracking.client import connect
from imagenette.tracking.outbox import read_card

ROOT = Path(__file__).resolve().parents[1]
CLASSES, CELLS = 10, 2
TRIES, PAUSE = 60, 2.0  # of one command, until it must have ended well; seconds between two of them
DRAIN = 600.0  # seconds in which everything ends well once nothing is killed any more
TRAIN = ["--data=digits", "--size=32", "--limit=320", "--holdout=0.2", "--epochs=2"]
STUDY = """name = "{name}"
title = "{name}"
seeds = [{seed}]
base = {{ data = "digits", size = 32, limit = 320, holdout = 0.2, epochs = 1 }}
grid = {{ weight_decay = [0, 1e-3] }}
"""
WORDS = {  # in the command line of each part
    "training": "-m imagenette train",
    "study worker": "imagenette.study.worker",
    "study driver": "-m imagenette study",
    "promoter": "-m imagenette promote",
    "report": "-m imagenette report",
    "serve": "-m imagenette serve --",
    "supervisor": "-m imagenette server --",
    "MLflow": "-m mlflow server",
    "MLflow worker": "spawn_main",
    "dashboard": "imagenette.stack.dashboard",
    "PostgreSQL": "/postgres -D ",
    "PostgreSQL backend": "[local]",
}
KILL, TERM, STOP = signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP
ROUND = [("training", number) for number in 4 * [KILL] + 3 * [TERM] + 3 * [STOP]]
ROUND += [("study worker", number) for number in 3 * [KILL] + 2 * [STOP]]
ROUND += [("study driver", KILL), ("promoter", KILL), ("report", KILL)]
ROUND += [(part, number) for part in ("study driver", "serve", "supervisor") for number in (KILL, TERM)]
ROUND += [
    (part, KILL) for part in ("dashboard", "PostgreSQL", "PostgreSQL backend", "MLflow", "MLflow worker")
]


def role(process: psutil.Process) -> str:
    """Which part it is; empty: none of those that are killed, or it has ended."""
    with suppress(psutil.Error):
        line = " ".join(process.cmdline())
        return next((part for part, words in WORDS.items() if words in line), "")
    return ""


@dataclass
class Soak:
    """What runs, what was acknowledged, what went wrong."""

    folder: Path
    found: aftermath.Found = field(default_factory=aftermath.Found)
    ended: Counter[str] = field(default_factory=Counter)
    """Commands by exit code, requests by answer."""
    kills: Counter[str] = field(default_factory=Counter)
    hit: set[int] = field(default_factory=set)
    """Process ids that were sent a signal."""
    down: list[list[float]] = field(default_factory=lambda: [[0.0, float("inf")]])
    """From when to when `serve` was down, by a monotonic clock; at first it is."""
    trained: list[Path] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)
    samples: list[aftermath.Sample] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    busy = trains = True
    """Whether anybody begins something new; whether a training is still to end."""
    over: threading.Event = field(default_factory=threading.Event)
    """Nobody needs the server any more."""

    def __post_init__(self) -> None:
        places = (self.folder / name for name in ("runs", "report", "tmp", "logs"))
        self.runs, self.report, self.temporary, self.logs = places
        self.temporary.mkdir()
        self.logs.mkdir()
        self.ports = [_common.free_port() for _ in range(3)]
        self.service = f"http://127.0.0.1:{self.ports[2]}"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPTUNA_"))}
        self.env = clean | {
            aftermath.MARK: str(self.folder),
            "TMPDIR": str(self.temporary),
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "home"),  # torch's, which is to stay
            "IMAGENETTE_HOME": str(self.folder / "home"),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        """`imagenette WORDS`; what it says goes into the log of its verb."""
        line = [sys.executable, "-m", "imagenette", *map(str, words)]
        with (self.logs / f"{words[0]}.log").open("ab") as log:
            log.write(f"$ {shlex.join(line[2:])}\n".encode())
            log.flush()
            place = {"cwd": self.folder, "env": self.env, "start_new_session": True}
            return subprocess.Popen(line, stdout=log, stderr=log, **place)

    def again(self, *words: object, sync: Path | None = None) -> bool:
        """The same command until its exit code is 0. sync: whose records are sent after a 74, which then is a
        good end too."""
        for _ in range(TRIES):
            code = self.start(*words).wait()
            self.ended[f"{words[0]}, exit code {code}"] += 1
            if code == 0 or (code == 74 and sync and self.start("sync", sync).wait() == 0):
                return True
            if self.over.wait(PAUSE):
                break
        self.found.wrong.append(f"imagenette {shlex.join(map(str, words))} did not end well {TRIES} times")
        return False

    # -- users, a thread each ------------------------------------------------------------------------------

    def train(self) -> None:
        while self.busy:
            number = len(self.trained) + 1
            output = self.runs / f"train-{number}"
            if self.again("train", *TRAIN, f"--seed={number}", "--output", output, sync=output):
                self.trained.append(output)
        self.trains = False

    def study(self) -> None:
        while self.busy:
            number = len(self.studies) + 1
            file = self.folder / f"soak-{number}.toml"
            file.write_text(STUDY.format(name=file.stem, seed=10_000 + number), "utf-8")
            options = ("--workers", 2, "--retry-failed", "--grace", 8, "--output", self.runs)
            if self.again("study", file, *options, sync=self.runs):
                self.studies.append(file.stem)

    def promote(self) -> None:
        while not self.over.wait(PAUSE) and (self.trains or len(self.promoted) < len(self.trained)):
            if len(self.promoted) < len(self.trained):
                run_id = str(read_card(self.trained[len(self.promoted)]).run_id)
                if self.again("promote", "--run", run_id, "--gate", "force", "--name", "imagenette"):
                    self.promoted.append(run_id)

    def write_reports(self) -> None:
        while self.busy:
            time.sleep(15)
            if self.studies:
                self.again("report", "--out", self.report)

    def request(self) -> None:
        """A picture four times a second. A failure is right only while `serve` is down."""
        picture = io.BytesIO()
        Image.effect_noise((40, 30), 50).convert("RGB").save(picture, "PNG")
        client = httpx.Client(base_url=self.service, timeout=30)
        while not self.over.wait(0.25):
            asked, problem = time.monotonic(), ""
            try:
                answer = client.post(f"/predict?top={CLASSES}", files={"files": picture.getvalue()})
            except httpx.TransportError as error:
                word = "request, refused while serve is down"
                if not any(since <= time.monotonic() and asked <= until for since, until in self.down):
                    word = problem = f"request, {type(error).__name__} while serve is up"
            else:
                word = f"request, {answer.status_code}"
                if answer.status_code == 200:
                    problem = aftermath.check_answer(answer.json(), CLASSES)
                elif answer.status_code != 503:
                    problem = f"request, {answer.status_code} {answer.text[:200]}"
            self.ended[word] += 1
            self.found.wrong += [problem] if problem else []

    # -- what is kept running, and killed ------------------------------------------------------------------

    def keep(self, *words: object) -> None:
        """Start it, and again whenever a kill ended it."""
        while not self.over.is_set():
            process = self.start(*words)
            while process.poll() is None and not self.over.wait(0.2):
                down = words[0] == "serve" and self.down[-1][1] > time.monotonic()
                if down and process.pid not in self.hit:  # one that was asked to stop answers what waits
                    with suppress(httpx.TransportError):
                        httpx.get(f"{self.service}/health", timeout=5)
                        self.down[-1][1] = time.monotonic()
            asked = process.poll() is None
            if asked:
                process.terminate()
            code = process.wait()
            self.ended[f"{words[0]}, exit code {code}"] += 1
            last = (self.logs / f"{words[0]}.log").read_text("utf-8").splitlines()[-1]
            killed = process.pid in self.hit or "killed by SIGKILL" in last  # a part, before it ever answered
            if not killed and not (asked and code == 0):
                self.found.wrong.append(f"{words[0]} ended by itself with code {code}: {last}")

    def sample(self) -> None:
        while not self.over.wait(5):
            for process in aftermath.ours(self.folder):
                part = role(process)
                if part in ("supervisor", "MLflow", "MLflow worker", "dashboard", "serve"):
                    with suppress(psutil.Error):
                        age, mb = time.time() - process.create_time(), process.memory_info().rss / 2**20
                        self.samples.append((part, process.pid, age, mb))

    def kill(self, rng: random.Random, *, seconds: float, gap: float) -> None:
        """One part after the other: each round has all of ROUND in a random order. gap: seconds between two
        of them, on average."""
        began, left = time.monotonic(), list[tuple[str, signal.Signals]]()
        while time.monotonic() - began < seconds:
            if len(left) < 2:  # on a busy machine the last one's victim may not be there for minutes
                left += rng.sample(ROUND, len(ROUND))
            part, number = left.pop()
            pause, frozen, which = rng.uniform(0.5, 1.5) * gap, rng.uniform(3, 12), rng.random()
            time.sleep(pause)
            there = sorted((p for p in aftermath.ours(self.folder) if role(p) == part), key=lambda p: p.pid)
            if not there:
                left.insert(0, (part, number))  # at the end of this round
                continue
            victim = there[int(which * len(there))]
            self.hit.add(victim.pid)
            if part == "serve":
                self.down.append([time.monotonic(), float("inf")])
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(number)
                self.kills[f"{part}, {number.name}"] += 1
                held = f" for {frozen:.0f} s" if number is STOP else ""
                _common.say(f"{time.monotonic() - began:6.0f} s  {number.name}{held} to {part} {victim.pid}")
                if number is STOP:
                    time.sleep(frozen)
                    victim.send_signal(signal.SIGCONT)
        _common.say("no more kills: everything comes to its end")

    def run(self, rng: random.Random, *, seconds: float, gap: float) -> None:
        """To its end: then `counts` has how much was acknowledged, and `found` what is wrong."""
        server = ("server", "--dir", "server", "--port", self.ports[0], "--dashboard-port", self.ports[1])
        serve = ("serve", "--port", self.ports[2], "--follow", 2, "--wait")
        pool = ThreadPoolExecutor(8)
        keepers = [pool.submit(self.keep, *server)]
        try:
            self.env |= self.addresses()
            keepers += [pool.submit(self.keep, *serve), pool.submit(self.request), pool.submit(self.sample)]
            users = [pool.submit(self.train), pool.submit(self.study)]
            users += [pool.submit(self.promote), pool.submit(self.write_reports)]
            self.kill(rng, seconds=seconds, gap=gap)
            self.busy = False
            self.ends(users, DRAIN)
            self.ends([pool.submit(self.look)], DRAIN)
        finally:
            self.busy = False
            self.over.set()
            self.ends(keepers, 120)
            aftermath.check_leaks(self.folder, self.temporary, self.ports, self.found)
            for process in aftermath.ours(self.folder):
                process.kill()

    def addresses(self) -> dict[str, str]:
        """What `imagenette server` prints for a shell once it is up."""
        for _ in range(600):
            time.sleep(0.5)
            said = (self.logs / "server.log").read_text("utf-8")
            found = dict(re.findall(r"^export (\w+)='?([^'\n]+)", said, re.MULTILINE))
            if len(found) == 2:
                return found
        raise TimeoutError(f"no server within five minutes: see {self.logs}")

    def look(self) -> None:
        """Everything is up and at rest: what is there of all that was acknowledged?"""
        found, client = self.found, connect(self.env["MLFLOW_TRACKING_URI"])
        self.again("report", "--out", self.report)
        aftermath.check_report(self.report, self.studies, found)
        outputs = [card.parents[1] for card in sorted(self.runs.rglob("outbox/run.json"))]
        records = sum(aftermath.check_run(client, output, found) for output in outputs)
        runs = aftermath.check_experiment(client, "imagenette", found)
        for name in self.studies:
            aftermath.check_study(runs, self.env["OPTUNA_STORAGE"], name, CELLS, found)
        champion = aftermath.check_registry(client, self.promoted, found)
        answer = httpx.get(f"{self.service}/model").json()  # it looks every two seconds
        if (answer.get("lineage") or {}).get("version") != champion:
            found.wrong.append(f"serve does not answer with the champion, version {champion}: {answer}")
        counts = {"trainings": len(self.trained), "studies": len(self.studies)}
        counts |= {"cells": CELLS * len(self.studies), "promotions": len(self.promoted)}
        counts |= {"reports": self.ended["report, exit code 0"], "acknowledged records": records}
        found.wrong += [f"no {what} at all" for what, times in counts.items() if not times]
        self.counts = counts

    def ends(self, futures: list[Future[None]], seconds: float) -> None:
        """Wait so long for all of them; what did not end, and the soak's own mistakes, are no good end."""
        done, late = wait(futures, timeout=seconds)
        self.found.wrong += [f"{len(late)} did not end within {seconds:.0f} s: see the logs"] if late else []
        self.found.wrong += [f"the soak itself: {error!r}" for f in done if (error := f.exception())]


def main() -> None:
    parser = _common.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="in which parts are killed [30]")
    parser.add_argument("--seed", type=int, default=1, help="of the kills [1]")
    parser.add_argument("--gap", type=float, default=8, help="seconds between two kills, on average [8]")
    parser.add_argument("--keep", action="store_true", help="keep its folder of temporary files for a look")
    given = parser.parse_args()
    signal.signal(TERM, signal.default_int_handler)  # what was started is ended then too
    facts = _common.about("mlflow", "optuna", seeds=[given.seed])
    folder = Path(tempfile.mkdtemp(prefix="imagenette-soak-")).resolve()
    folder.chmod(0o711)  # root's PostgreSQL, another user, passes through
    soak = Soak(folder)
    soak.run(random.Random(given.seed), seconds=60 * given.minutes, gap=given.gap)
    parts = aftermath.memory(soak.samples, soak.found)
    verdict = {kind: len(lines) for kind, lines in vars(soak.found).items()}
    summary = {"minutes": given.minutes, "kills": sum(soak.kills.values()), **soak.counts, **verdict}
    details = soak.ended + Counter({f"kill: {what}": times for what, times in soak.kills.items()})
    notes = [_common.table([{"what": what, "times": n} for what, n in sorted(details.items())])]
    notes += [_common.table(parts)] if parts else []
    notes += [f"{kind}: {line}" for kind, lines in vars(soak.found).items() for line in lines]
    rows = [{"what": what, "times": n} for what, n in summary.items()]
    figures = {"summary": summary, "kills": soak.kills, "ended": soak.ended, "memory": parts}
    _common.publish(facts, rows, file=given.json, notes=notes, **figures)
    if given.keep or any(verdict.values()):
        _common.say(f"everything is in {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(any(verdict.values()))


if __name__ == "__main__":
    main()
