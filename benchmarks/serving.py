"""Throughput and latency of `imagenette serve`: micro-batching against one picture at a time, in turns.

Two services of the same ResNet run side by side; clients that ask without a pause turn from one to the other.
The clients share the machine's cores with the services, as they would on a small one.

    python benchmarks/serving.py --json FILE
"""

from __future__ import annotations

import http.client
import io
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import _common
import numpy as np
import torch
from PIL import Image

from imagenette.data.dataset import MEAN, STD
from imagenette.network import models
from imagenette.network.export import Classifier, save_model
from imagenette.network.self_test import SelfTest
from imagenette.records import Predictions

KINDS = {"micro-batched": 32, "one at a time": 1}  # --max-batch of each
CLASSES = [f"class {i}" for i in range(10)]


def make_model(folder: Path, *, depth: int, size: int) -> Path:
    """A ResNet with random weights: as fast as a trained one."""
    net = models.build(depth, classes=len(CLASSES), seed=1).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    with torch.inference_mode():
        batch = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
        shares = Classifier(net, MEAN, STD)(batch).numpy()
    said = Predictions(shares.argmax(1), shares.argmax(1), shares.max(1))
    self_test = SelfTest.sample([str(i) for i in range(8)], pictures, said)
    about = {"classes": CLASSES, "labels": CLASSES, "side": 256, "size": size, "mean": MEAN, "std": STD}
    return save_model(net, folder / "model", architecture=f"resnet{depth}", self_test=self_test, **about)


def start(model: Path, log: Path, *, batch: int) -> tuple[subprocess.Popen[bytes], int]:
    command = [sys.executable, "-m", "imagenette", "serve", "--model", str(model), "--port", "0"]
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen([*command, "--max-batch", str(batch)], stdout=out, stderr=out)
    while not (found := re.search(r":(\d+)\n", log.read_text("utf-8"))):
        if process.poll() is not None:
            raise SystemExit(log.read_text("utf-8"))
        time.sleep(0.1)
    return process, int(found[1])


def request_body() -> tuple[bytes, dict[str, str]]:
    """One photograph-like JPEG of 224 x 224 px, about 10 kB, as multipart/form-data."""
    rng = np.random.default_rng(1)
    rough = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
    out = io.BytesIO()
    rough.resize((224, 224), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    return head + out.getvalue() + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def load(port: int, *, clients: int, seconds: float) -> dict[str, float]:
    """Clients that ask without a pause: answers a second, and the time of one, milliseconds."""
    body, headers = request_body()
    times: list[float] = []
    errors: list[str] = []
    until = time.perf_counter() + seconds

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < until:
            began = time.perf_counter()
            connection.request("POST", "/predict", body, headers)
            response = connection.getresponse()
            content = response.read()
            times.append(time.perf_counter() - began)
            if response.status != 200:
                errors.append(f"{response.status} {content[:100]!r}")

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    p50, p99 = np.percentile(np.array(times) * 1000, [50, 99]).tolist()
    return {"per_second": len(times) / took, "p50_ms": p50, "p99_ms": p99, "errors": len(errors)}


def main() -> None:
    parser = _common.parser(__doc__, rounds=5)
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--size", type=int, default=128, help="px")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--seconds", type=float, default=10, help="of a round [10]")
    given = parser.parse_args()

    facts = _common.about(seeds=[1])
    rounds: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temp:
        model = make_model(Path(temp), depth=given.depth, size=given.size)
        services = {
            kind: start(model, Path(temp) / f"{batch}.log", batch=batch) for kind, batch in KINDS.items()
        }
        try:
            for _, port in services.values():
                load(port, clients=4, seconds=2)  # warm
            for clients in given.clients:
                turns = {
                    f"{kind}, {clients} clients": partial(load, port, clients=clients, seconds=given.seconds)
                    for kind, (_, port) in services.items()
                }
                rounds |= _common.in_turns(turns, rounds=given.rounds)
        finally:
            for process, _ in services.values():
                process.terminate()
                process.wait()
    rows = [{"service": name, **row(each)} for name, each in rounds.items()]
    ratios = {
        f"{clients} clients": _common.ratio(
            *([each["per_second"] for each in rounds[f"{kind}, {clients} clients"]] for kind in KINDS)
        )
        for clients in given.clients
    }
    notes = [f"{clients}: micro-batched / one at a time = {ratio:.2f}" for clients, ratio in ratios.items()]
    notes.append(
        f"ResNet-{given.depth}, {given.size} px, JPEG 224 px, float32; rounds of {given.seconds:g} s."
    )
    _common.publish(facts, rows, file=given.json, notes=notes, ratio=ratios, rounds=rounds)


def row(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds; of errors the sum."""
    medians = {key: statistics.median(each[key] for each in rounds) for key in rounds[0] if key != "errors"}
    return medians | {"errors": sum(each["errors"] for each in rounds)}


if __name__ == "__main__":
    main()
