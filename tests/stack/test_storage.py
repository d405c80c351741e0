"""Where the stack's data lies: a backup into a new stack, and artifacts on an S3 store."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.compose import PROJECT, SERVERS, Stack, docker, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]


@pytest.fixture
def other(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A second stack, empty, of the first one's images and with its secrets."""
    other = Stack.copy(tmp_path, f"{stack.name}-other")
    shutil.rmtree(other.folder / "docker/secrets")
    shutil.copytree(stack.folder / "docker/secrets", other.folder / "docker/secrets")
    yield other
    other.compose("down", "-v", "--remove-orphans")


def keep(stack: Stack, experiment: str) -> str:
    """Store an artifact of an experiment through MLflow; its route."""
    route = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/a.txt"
    answer = stack.ask("mlflow", route, method="PUT", body=b"kept")
    assert answer.status == 200, answer.body
    return route


def documented(after: str) -> str:
    """A block of commands of docs/containers.md, for this machine's compose."""
    text = (PROJECT / "docs/containers.md").read_text().split(after, 1)[1]
    block = re.search(r"((?:^    .*\n)+)", text, re.M)
    assert block
    return block[1]


def run_block(stack: Stack, commands: str, folder: Path) -> None:
    """The commands as a person would type them in docker/, the files of the backup in another folder."""
    from tests.stack.compose import compose_command

    commands = commands.replace("docker compose", " ".join(compose_command() or ()))
    commands = re.sub(r"([<>])(\$name\.dump|artifacts\.tar)", rf"\1{folder}/\2", commands)
    done = subprocess.run(
        ["bash", "-euxc", commands],
        cwd=stack.folder / "docker",
        env=stack.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_backup_as_documented_fills_a_new_stack(stack: Stack, other: Stack, tmp_path: Path) -> None:
    experiment = stack.call("experiments/create", {"name": f"kept {time.time()}"})["experiment_id"]
    run = stack.call("runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"]
    stack.call("runs/log-metric", {"run_id": run, "key": "kept", "value": 0.5, "timestamp": 1, "step": 1})
    artifact = keep(stack, experiment)
    trials = stack.sql("optuna", "SELECT count(*) FROM trials")
    saved = tmp_path / "saved"
    saved.mkdir()
    run_block(stack, documented("A backup, while it runs"), saved)
    assert (saved / "mlflow.dump").stat().st_size > 10_000
    run_block(other, documented("and back, into a new stack"), saved)
    other.healthy(SERVERS)
    metrics = other.call(f"runs/get?run_id={run}")["run"]["data"]["metrics"]
    assert [(m["key"], m["value"]) for m in metrics] == [("kept", 0.5)]
    assert other.ask("mlflow", artifact).body == b"kept"
    assert other.sql("optuna", "SELECT count(*) FROM trials") == trials


DOCKERFILE = b"FROM python:3.11.14-slim-bookworm\nRUN pip install -q 'moto[server]' boto3\n"
BUCKET = """
import boto3, sys
keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
s3 = boto3.client("s3", endpoint_url="http://127.0.0.1:9000", **keys)
if sys.argv[1] == "make":
    s3.create_bucket(Bucket="imagenette")
print([(o["Key"], o["Size"]) for o in s3.list_objects_v2(Bucket="imagenette").get("Contents", [])])
"""


def test_artifacts_lie_on_an_s3_store_when_asked(stack: Stack, other: Stack) -> None:
    """The store is moto's, which speaks S3 over HTTP."""
    build = ["docker", "build", "-q", "--network", "host", "-t", f"{stack.env['IMAGES']}-s3", "-"]
    subprocess.run(build, input=DOCKERFILE, check=True, capture_output=True, env=stack.env)
    keys = other.folder / "docker/secrets/s3_credentials"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    keys.chmod(0o444)
    files = ["-f", "compose.yaml", "-f", "compose.s3.yaml"]
    other.env |= {"ARTIFACTS": "s3://imagenette/here", "S3_ENDPOINT_URL": "http://s3:9000"}
    other.compose(*files, "up", "-d", "mlflow", "accounts")
    network = f"{other.name}_tracking"
    store = docker(
        *["run", "-d", "--network", network, "--network-alias", "s3", f"{stack.env['IMAGES']}-s3"],
        *["moto_server", "-H", "0.0.0.0", "-p", "9000"],
    ).strip()
    try:
        other.healthy(("mlflow",))

        def made() -> bool:
            done = subprocess.run(
                ["docker", "exec", store, "python", "-c", BUCKET, "make"], capture_output=True
            )
            return done.returncode == 0

        until(made, 30)
        until(lambda: other.ask("mlflow", "/version").status == 200, 60)  # the account is made
        experiment = other.call("experiments/create", {"name": "on S3"})["experiment_id"]
        assert other.ask("mlflow", keep(other, experiment)).body == b"kept"
        assert f"('here/{experiment}/a.txt', 4)" in docker("exec", store, "python", "-c", BUCKET, "list")
    finally:
        docker("rm", "-f", store)
