"""Everything that wants a GPU, in order of worth, within so many seconds; the same command goes on later.

    python benchmarks/gpu_campaign.py run --data ARCHIVE --out FOLDER --seconds 540
    python benchmarks/gpu_campaign.py pack --data ARCHIVE --out FOLDER [--python 3.12]   # for a bare machine
    python benchmarks/gpu_campaign.py merge FOLDER... --json FILE

Parts: the GPU tests; throughput against the resident batch and plain steps; `record` at 5 and 20 epochs;
`paper` and `paper-code`; the reference's three tables. Each job leaves NAME.json when it is done, and is not
begun where less time is left than it needs. Trainings run several at once; those that the end of the time
meets are told to save, and go on in the next call. `--rehearse` does all of it in its smallest form, also on
a CPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import requires
from pathlib import Path

import _common
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from imagenette.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
SAVING = 25.0  # seconds that stopped trainings get to save
GPU_TESTS = ("-m", "gpu", "tests/training", "tests/data", "tests/integration/test_processes.py")
"""Not all of tests/: some files import what a bare machine lacks, and would end the collection."""
TESTS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis")
"""What they run by; what these need in turn is packed too."""
WITH_TORCH = (
    "torch",
    "nvidia-",
    "triton",
    "cuda-",
    "timm",
    "pandas",
    "scipy",
    "scikit-learn",
    "numpy",
    "sympy",
)
"""Beginnings of names: there where torch is."""
WAYS = ("", "compile", "cudnn_benchmark")
"""Of a step: recorded as it is, or with one of these knobs besides."""
CARRIED = 45 * 2**20
"""Bytes of one part of the data, for transfers that are limited."""


@dataclass(frozen=True)
class Job:
    name: str
    """Of its result, NAME.json."""
    command: list[str]
    part: str
    seconds: float = 30.0
    """Less than that left: it is not begun."""
    resumable: bool = False
    """A training or a study: told to save when the time is over, several at once."""
    facts: dict[str, str] = field(default_factory=dict)


def jobs(data: str, out: Path, *, rehearse: bool) -> Iterator[Job]:
    """All of them, the most valuable first."""
    python = [sys.executable, "-m", "imagenette"]
    tests = ["tests/data/test_resident.py"] if rehearse else list(GPU_TESTS)
    yield Job(
        "tests",
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            *tests,
            "-p",
            "no:cacheprovider",
            f"--junitxml={out}/tests.xml",
        ],
        "tests",
        seconds=60,
    )
    grid = itertools.product((256, 32), (18, 50), (128, 224))
    cells = [
        (18, 64, 64),
        *((depth, size, batch) for batch, depth, size in grid),
        (34, 128, 256),
        (101, 224, 256),
    ]
    cells += [(18, 256, 256), (152, 224, 256)]
    compiled = [(18, 128, 256), (50, 128, 256), (50, 224, 256), (18, 64, 64)]
    kinds = [
        (cell, way) for way, some in zip(WAYS, (cells, compiled, compiled), strict=True) for cell in some
    ]
    for (depth, size, batch), way in kinds[: 1 if rehearse else None]:
        knobs = {"depth": depth, "size": 32 if rehearse else size, "batch-size": batch, "data": data}
        knobs |= {"start-size": 0, "optimizer": "sgd"}
        turns = ["--rounds", "2", "--steps", "3"] if rehearse else ["--rounds", "5", "--steps", "40"]
        name = f"throughput-{depth}-{size}-{batch}{way and '-' + way}"
        knobs |= {way: "true"} if way else {}
        line = [*python, "bench", *turns, *options(knobs), "--json", str(out / f"{name}.measured")]
        yield Job(name, line, "throughput")
    peers = [(18, 128, 256), (50, 224, 256)] if Path(data).is_file() else []  # loaders need its pictures
    for depth, size, batch in peers[: 1 if rehearse else None]:
        cell = {"depth": depth, "size": 32 if rehearse else size, "batch-size": 8 if rehearse else batch}
        turns = ["--rounds=1", "--steps=2", "--try-steps=1"] if rehearse else ["--rounds=3", "--steps=60"]
        line = [sys.executable, str(ROOT / "benchmarks/peers.py"), *options(cell | {"data": data}), *turns]
        line += [
            "--unpacked",
            str(Path(tempfile.gettempdir(), "imagenette-unpacked")),
            "--peers",
            "timm",
            "--device",
            "auto",
            "--workers",
        ]
        line += ["0"] if rehearse else ["8", "14"]
        name = f"timm-{depth}-{size}-{batch}"
        yield Job(name, [*line, "--json", str(out / f"{name}.measured")], "throughput")
    small = {"data": data, "size": 32, "epochs": 2, "limit": 200} if rehearse else {"data": data}
    plans: list[tuple[str, dict[str, object], int]] = [
        ("record-5", {"recipe": "record"}, 5),
        ("record-20", {"recipe": "record", "epochs": 20}, 5),
        ("paper", {"recipe": "paper"}, 3),
        ("paper-code", {"recipe": "paper-code"}, 3),
    ]
    for (name, knobs, seeds), most in itertools.product(plans, [1 if rehearse else 9]):
        for seed in range(1, min(seeds, most) + 1):
            output = out / "runs" / f"{name}-{seed}"
            line = [
                *python,
                "train",
                *options(knobs | small | {"seed": seed}),
                "--offline",
                "--output",
                str(output),
            ]
            yield Job(
                f"{name}-{seed}", line, name.partition("-")[0], resumable=True, facts={"output": str(output)}
            )
    for study in ("weight-decay", "depth", "batch-size")[: 1 if rehearse else 3]:
        store = ["--storage", f"sqlite:///{out}/optuna.db", "--output", str(out / "runs"), "--workers", "2"]
        form = ["--smoke"] if rehearse else ["--data", data]
        yield Job(f"study-{study}", [*python, "study", study, *form, *store], "tables", resumable=True)


def options(knobs: dict[str, object]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in knobs.items()]


def run(given: argparse.Namespace) -> int:
    """The exit code: 0 all is done; 75 the same command goes on."""
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + given.seconds
    todo = [
        job
        for job in jobs(given.data, out, rehearse=given.rehearse)
        if not (out / f"{job.name}.json").exists() and (not given.parts or job.part in given.parts)
    ]
    facts = _common.about(seeds=[1], device="auto")
    under_way: list[tuple[Job, subprocess.Popen[bytes], float]] = []
    left: list[str] = []

    def close(ended: tuple[Job, subprocess.Popen[bytes], float]) -> None:
        job, process, began = ended
        if process.returncode == 75:
            left.append(job.name)
            return
        result = {
            "job": job.name,
            "part": job.part,
            "exit": process.returncode,
            "command": job.command,
            **facts,
        }
        result |= {"seconds": round(time.monotonic() - began, 1), "result": result_of(job, out)}
        write_whole(out / f"{job.name}.json", json.dumps(result, indent=2) + "\n")
        _common.say(f"{job.name}: exit {process.returncode}, {result['seconds']} s")

    def wait(atmost: int) -> None:
        while len(under_way) > atmost and time.monotonic() < deadline - SAVING:
            for one in [each for each in under_way if each[1].poll() is not None]:
                under_way.remove(one)
                close(one)
            time.sleep(0.2)

    for job in todo:
        wait(given.together - 1 if job.resumable else 0)  # what is timed has the machine to itself
        if deadline - SAVING - time.monotonic() < job.seconds:
            left.append(job.name)
            continue
        log = (out / f"{job.name}.log").open("ab")
        process = subprocess.Popen(job.command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        under_way.append((job, process, time.monotonic()))
    wait(0)
    for job, process, _ in under_way:
        process.send_signal(signal.SIGTERM if job.resumable else signal.SIGKILL)
    for job, process, began in under_way:
        try:
            process.wait(SAVING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if job.resumable and process.returncode in (0, 1, 2):
            close((job, process, began))  # it ended by itself after all
        else:
            left.append(job.name)
    _common.say(f"left: {', '.join(left) or 'nothing'}")
    return 75 if left else 0


def result_of(job: Job, out: Path) -> object:
    """What a job found: a training's result and history, a bench's figures, the tests' counts."""
    if output := job.facts.get("output"):
        found = Path(output, "result.json")
        return json.loads(found.read_text("utf-8")) if found.exists() else None
    if job.part == "throughput":
        measured = out / f"{job.name}.measured"
        return json.loads(measured.read_text("utf-8")) if measured.exists() else None
    if job.part == "tests" and (out / "tests.xml").exists():
        cases = list(ET.parse(out / "tests.xml").getroot().iter("testcase"))
        kinds = {
            kind: [c.get("name") for c in cases if c.find(kind) is not None]
            for kind in ("failure", "skipped")
        }
        return {"tests": len(cases), "failed": kinds["failure"], "skipped": len(kinds["skipped"])}
    return None


def merge(given: argparse.Namespace) -> int:
    """One file of all results that came back; of a job that two folders have, the one that ended well."""
    merged: dict[str, dict[str, object]] = {}
    for folder in given.folders:
        for file in sorted(folder.glob("*.json")):
            found = json.loads(file.read_text("utf-8"))
            kept = merged.get(found["job"])
            if kept is None or (kept["exit"] != 0 and found["exit"] == 0):
                merged[found["job"]] = found
    write_whole(given.json, json.dumps(list(merged.values()), indent=1) + "\n")
    ended = sum(result["exit"] == 0 for result in merged.values())
    _common.say(f"{given.json}: {len(merged)} jobs, {ended} ended well")
    return 0


def pack(given: argparse.Namespace) -> int:
    """What a machine needs that has nothing but Python and torch: the project, wheels, the data in parts, and
    the commands that put them together."""
    out = given.out.resolve()
    (out / "wheels").mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "archive", "-o", str(out / "project.tar"), "HEAD"], cwd=ROOT, check=True)
    wanted = packed(python=given.python)
    platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in (17, 24, 27, 28, 31, 34)]
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    line += [
        f"--python-version={given.python}",
        "--implementation=cp",
        *platforms,
        "--platform=manylinux2014_x86_64",
    ]
    missing = []
    for name in wanted:
        done = subprocess.run([*line, "-d", str(out / "wheels"), name], capture_output=True, check=False)
        if done.returncode:
            missing.append(name)
    archive = Path(given.data)
    with archive.open("rb") as whole:
        for number in itertools.count():
            if not (chunk := whole.read(CARRIED)):
                break
            (out / f"data.{number:02d}").write_bytes(chunk)
    name = archive.name
    (out / "unpack.sh").write_text(
        'set -e; cd "$(dirname "$0")"; mkdir -p project; tar -xf project.tar -C project; '
        f"cat data.?? > {name}\n"
        "python3 -m pip install -q --no-index --no-deps --no-compile --target site wheels/*.whl\n"
        f'echo "export PYTHONPATH=$PWD/site:$PWD/project; cd $PWD/project; DATA=$PWD/{name}" > env.sh\n',
        encoding="utf-8",
    )
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    _common.say(f"{out}: {size:.0f} MB; without a wheel: {', '.join(missing) or 'none'}")
    return 1 if missing else 0


def packed(*, python: str) -> list[str]:
    """`NAME==VERSION` of all that runs and their tests need on Linux with that Python, less what is there
    where torch is."""
    runs, everything = (
        pins((ROOT / name).read_text("utf-8"), python=python)
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    tools = {need for tool in TESTS for need in needs(tool, python=python)}
    tests = [pin for pin in everything if canonicalize_name(pin.partition("==")[0]) in tools]
    return list(dict.fromkeys([*runs, *tests]))


def needs(name: str, *, python: str) -> set[str]:
    """An installed package and all that it needs, but for its extras."""
    found: set[str] = set()
    left = [name]
    while left:
        if (each := canonicalize_name(left.pop())) not in found:
            found.add(each)
            left += [need.name for need in map(Requirement, requires(each) or ()) if applies(need, python)]
    return found


def applies(need: Requirement, python: str) -> bool:
    return need.marker is None or need.marker.evaluate(on_linux(python) | {"extra": ""})


def on_linux(python: str) -> dict[str, str]:
    return {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}


def pins(lock: str, *, python: str) -> list[str]:
    """`NAME==VERSION` of what a lock holds for that Python on Linux, less what is there where torch is."""
    found = []
    for line in lock.splitlines():
        pin, _, marker = line.removesuffix("\\").partition(";")
        wanted = "==" in pin and not line.startswith((" ", "#", *WITH_TORCH))
        if wanted and (not marker.strip() or Marker(marker.strip()).evaluate(on_linux(python))):
            found.append(pin.strip())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    running = verbs.add_parser("run")
    running.add_argument("--data", default="imagenette")
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--seconds", type=float, default=540)
    running.add_argument("--together", type=int, default=3, help="trainings at once [3]")
    running.add_argument("--parts", nargs="+", choices=["tests", "throughput", "record", "paper", "tables"])
    running.add_argument("--rehearse", action="store_true")
    running.set_defaults(does=run)
    packing = verbs.add_parser("pack")
    packing.add_argument("--data", required=True)
    packing.add_argument("--out", type=Path, required=True)
    packing.add_argument("--python", default="3.12")
    packing.set_defaults(does=pack)
    merging = verbs.add_parser("merge")
    merging.add_argument("folders", nargs="+", type=Path)
    merging.add_argument("--json", type=Path, required=True)
    merging.set_defaults(does=merge)
    given = parser.parse_args(arguments)
    return int(given.does(given))


if __name__ == "__main__":
    sys.exit(main())
