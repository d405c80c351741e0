"""Stands where `imagenette train` stands, in a tenth of a second: a real process with a real result file.

Run with `python -S`. What it did is a line in the file named by STUB_LOG: `began NAME PID`, `ended NAME PID`.
STUB_SECONDS: how long it takes. STUB_<word>=NAME makes the training of that name fail in that way.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

options = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))


def note(word):
    line = f"{word} {options['run-name']} pid={os.getpid()}\n".encode()
    log = os.open(os.environ["STUB_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)
    os.close(log)


def end(status, code=0, **more):
    value = 0.5 + float(options["lr"]) / 10 + int(options["seed"]) / 1000
    tests = ("best/test_accuracy", "final/test_accuracy", "selected/test_accuracy")
    metrics = dict.fromkeys((*tests, "selected/holdout_accuracy"), value) if status == "finished" else {}
    result = {"status": status, "run_id": None, "unsynced": 0, "metrics": metrics, "message": "", **more}
    path = Path(options["output"]) / "result.json"
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(result))
    beside.replace(path)
    note("ended" if status == "finished" else status)
    sys.exit(code)


note("began")
name = options["run-name"]
until = time.monotonic() + float(os.environ.get("STUB_SECONDS", "0.1"))
while time.monotonic() < until:
    if stopped:
        end("preempted", 75, message="stopped at epoch 1, step 1")
    time.sleep(0.01)
if os.environ.get("STUB_KILLED") == name:
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ.get("STUB_RAISES") == name:
    raise RuntimeError("the sky fell")
if os.environ.get("STUB_DIVERGES") == name:
    end("diverged", 1, message="loss is nan at epoch 1, step 3")
if os.environ.get("STUB_UNTRACKED") == name:
    end("untracked", 1, message="tracking server x: database is locked")
if os.environ.get("STUB_NAN") == name:
    end("finished", metrics={"selected/holdout_accuracy": float("nan")})
end("finished")
