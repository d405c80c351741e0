"""The manifests under docker/: that they say what the command line and the schedulers understand, and run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import psutil
import pytest
import yaml

from imagenette.cli import verbs
from imagenette.training.job import Result
from tests.integration.conftest import TINY, logged_epochs
from tests.waiting import wait_until

DOCKER = Path(__file__).parents[2] / "docker"
SBATCH = sorted((DOCKER / "slurm").glob("*.sbatch"))
KUBERNETES = sorted((DOCKER / "kubernetes").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def pod(path: Path) -> dict[str, Any]:
    (job,) = (found for found in documents(path) if found["kind"] == "Job")
    return job["spec"]["template"]["spec"]


def calls(path: Path) -> list[list[str]]:
    """What a manifest has `imagenette` do: its verb and options."""
    if path.suffix == ".yaml":
        lines = [(c := pod(path)["containers"][0]).get("command", ["imagenette"]) + c["args"]]
    else:
        text = path.read_text().replace("\\\n", " ")
        lines = [shlex.split(line, comments=True) for line in text.splitlines() if not line.startswith("#")]
    return [line[line.index("imagenette") + 1 :] for line in lines if "imagenette" in line]


@pytest.mark.parametrize("path", [*SBATCH, *KUBERNETES], ids=lambda path: path.name)
def test_every_option_of_ours_exists(path):
    found = calls(path)
    assert found
    for verb, *words in found:
        command = verbs.commands[verb]
        known = {name for option in command.get_params(click.Context(command)) for name in option.opts}
        named = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert named <= known, f"{verb}: {named - known}"


@pytest.mark.parametrize("path", SBATCH, ids=lambda path: path.name)
def test_batch_scripts_parse(path):
    subprocess.run(["bash", "-n", path], check=True)
    if shellcheck := shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"):
        subprocess.run([shellcheck, path], check=True)
    directives = [line for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in directives)


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_kubernetes_manifests_follow_the_schema(path, version):
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_pods_have_few_rights_and_time_to_save(path):
    spec = pod(path)
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp", "/dev/shm"}
    assert {m["name"] for m in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    saving = [e["value"] for e in container.get("env", []) if e["name"] == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]
    assert spec["terminationGracePeriodSeconds"] > max([120, *map(int, saving)])


def test_pods_of_a_training_find_each_other():
    service, job = documents(DOCKER / "kubernetes/train.yaml")
    name = job["metadata"]["name"]
    spec = pod(DOCKER / "kubernetes/train.yaml")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    assert spec["subdomain"] == service["metadata"]["name"]
    args = spec["containers"][0]["args"]
    assert f"--rdzv-endpoint={name}-0.{spec['subdomain']}:{service['spec']['ports'][0]['port']}" in args
    assert f"--nnodes={job['spec']['completions']}" in args
    assert job["spec"]["parallelism"] == job["spec"]["completions"]


SRUN = """#!/bin/bash
# Two "nodes" on this machine; like Slurm's, it ends with the highest exit code of its tasks.
while [[ $1 == --* ]]; do shift; done
"$@" & a=$!
"$@" & b=$!
echo "$a $b" > "$NODES"
wait $a; code=$?
wait $b || code=$?
exit $code
"""
SCONTROL = """#!/bin/bash
case $1 in
show) echo localhost; echo elsewhere ;;
requeue) echo "$2" >> "$REQUEUED" ;;
esac
"""


@pytest.mark.slow
def test_a_training_under_slurm_is_requeued_when_preempted_and_then_finishes(tmp_path):
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env |= {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{env['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "RENDEZVOUS_PORT": str(port),
        "NODES": str(tmp_path / "nodes"),
        "REQUEUED": str(tmp_path / "requeued"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "IMAGENETTE_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }
    options = [part for name, text in TINY.items() for part in (f"--{name}", text)]
    command = ["bash", str(DOCKER / "slurm/train.sbatch"), *options]
    output = tmp_path / "runs/slurm-7"

    job = subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True)
    try:
        wait_until(lambda: logged_epochs(output) or job.poll() is not None, 120)
        for node in (tmp_path / "nodes").read_text().split():
            psutil.Process(int(node)).send_signal(signal.SIGTERM)
        assert job.wait(60) == 0
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert Result.read(output).status == "preempted"
    assert (tmp_path / "requeued").read_text() == "7\n"

    # It finishes; the script sends what it recorded offline.
    ended = subprocess.run(command, cwd=tmp_path, env=env, timeout=200)
    assert ended.returncode == 0
    assert Result.read(output).status == "finished"
    assert [epoch["step"] for epoch in logged_epochs(output)] == [1, 2, 3, 4]
    assert (tmp_path / "requeued").read_text() == "7\n"
