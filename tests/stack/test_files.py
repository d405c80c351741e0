"""The files of docker/: linted, valid, and as strict as they claim. On an engine: tests/stack."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"
TOOLS = Path(sys.executable).parent
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SCRIPTS = ("entrypoint", "install", "make-secrets", "init-databases.sh", "check")


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def versions(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", lock.read_text(), re.MULTILINE))


def test_the_dockerfile_passes_hadolint() -> None:
    done = run(TOOLS / "hadolint", DOCKER / "Dockerfile")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_passes_shellcheck_and_may_be_run(name: str) -> None:
    done = run(TOOLS / "shellcheck", DOCKER / name)
    assert done.returncode == 0, done.stdout
    assert name == "init-databases.sh" or (DOCKER / name).stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml", "compose.s3.yaml"])
def test_a_compose_file_follows_the_schema(name: str) -> None:
    done = run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", [["docker", "compose"], ["docker-compose"]])
@pytest.mark.parametrize("more", [[], ["compose.gpu.yaml"], ["compose.s3.yaml"]])
def test_compose_reads_it(tmp_path: Path, command: list[str], more: list[str]) -> None:
    if not shutil.which(command[0]) or run(*command, "version").returncode:
        pytest.skip(f"{' '.join(command)} is not installed")
    folder = shutil.copytree(DOCKER, tmp_path / "docker", ignore=shutil.ignore_patterns("secrets"))
    run(folder / "make-secrets", check=True)
    (folder / "secrets/s3_credentials").write_text("")
    files = [part for name in ["compose.yaml", *more] for part in ("-f", name)]
    done = run(*command, *files, "config", "-q", cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_a_service_may_do_little(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert "privileged" not in service
    assert "user" not in service  # the image's own, which is not root
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if service.get("restart") == "unless-stopped":
        assert service["healthcheck"]


def test_secrets_come_from_files_alone() -> None:
    given = re.findall(
        r"^ *(\w*(?:PASSWORD|SECRET|_KEY)\w*): *(.+)$", (DOCKER / "compose.yaml").read_text(), re.M
    )
    assert given
    assert [name for name, value in given if not value.startswith("/run/secrets/")] == []
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    made = re.search(r"for name in (.*?); do", (DOCKER / "make-secrets").read_text(), re.S)
    assert made
    assert set(made[1].replace("\\", "").split()) == set(COMPOSE["secrets"])


def test_a_stop_waits_longer_than_a_checkpoint_takes() -> None:
    from imagenette.training.launch import GRACE

    for name in ("worker", "trainer"):
        assert COMPOSE["services"][name]["stop_grace_period"] == "5m"
    assert 2 * GRACE < 300  # what a study's driver waits for its workers


def test_what_compose_may_be_told_is_said_in_env_and_nothing_else() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    said = set(re.findall(r"^(\w+)=", (DOCKER / ".env").read_text(), re.M))
    assert asked | {"COMPOSE_PROJECT_NAME"} == said


def test_bases_are_pinned() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    bases = re.findall(r"^ARG \w+_IMAGE=(\S+)$", text, re.M)
    assert len(bases) == 2
    assert all(re.fullmatch(r"\w+:\d+\.\d+\S*", base) for base in bases)
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.M))
    assert set(re.findall(r"^FROM (\S+)", text, re.M)) <= stages | {"${PYTHON_IMAGE}", "${POSTGRES_IMAGE}"}


def test_a_lock_decides_which_packages_are_installed_anew() -> None:
    """Nothing of our own code is copied before the packages are there."""
    for target in ("tracking", "torch"):
        stage = re.search(
            rf"^FROM python AS {target}$(.*?)^FROM", (DOCKER / "Dockerfile").read_text(), re.M | re.S
        )
        assert stage
        before = stage[1].split("RUN /opt/imagenette/install")[0]
        assert re.findall(r"^COPY (\S+)", before, re.M) in (["docker/tracking.lock"], ["requirements.lock"])


def test_the_tracking_image_has_the_locks_versions_and_no_torch() -> None:
    ours, project = versions(DOCKER / "tracking.lock"), versions(PROJECT / "requirements.lock")
    assert not {"torch", "torchvision"} & set(ours)
    apart = {name for name in ours if name in project and ours[name] != project[name]}
    assert apart <= {"python-dateutil"}  # boto3 wants an older one than matplotlib needs
    assert ours["mlflow"] == project["mlflow"]
    assert "--hash=sha256:" in (DOCKER / "tracking.lock").read_text()


def test_the_lock_without_cuda_lacks_torch_and_nothing_that_others_need() -> None:
    done = run("awk", "-f", DOCKER / "without-cuda.awk", PROJECT / "requirements.lock")
    kept = set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", done.stdout, re.MULTILINE))
    gone = set(versions(PROJECT / "requirements.lock")) - kept
    assert {"torch", "torchvision", "triton"} < gone
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in gone)
    assert {"mlflow", "numpy", "sympy", "networkx"} < kept


def test_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    script = shutil.copy(DOCKER / "make-secrets", tmp_path)
    run(script, check=True)
    folder = tmp_path / "secrets"
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == set(COMPOSE["secrets"])
    assert all(re.fullmatch(r"[0-9a-f]{64}\n", secret) for secret in made.values())
    assert len(set(made.values())) == len(made)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "password").chmod(0o644)
    (folder / "password").write_text("my own password\n")
    run(script, check=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made | {
        "password": "my own password\n"
    }


def test_neither_git_nor_an_image_takes_secrets() -> None:
    assert "secrets/" in (DOCKER / ".gitignore").read_text().splitlines()
    patterns = (PROJECT / ".dockerignore").read_text().splitlines()
    assert "*" in patterns
    assert not any(
        "secrets" in pattern or pattern in ("!docker", "!docker/*")
        for pattern in patterns
        if pattern[0] == "!"
    )
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.M)
    allowed = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    assert {name for names in copied for name in names.split()} <= allowed


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_secret_that_is_missing_is_one_line(content: str | None, tmp_path: Path) -> None:
    """The entry point reads /run/secrets alone, so this is a copy that reads a folder of the test's."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    entrypoint = tmp_path / "entrypoint"
    text = (DOCKER / "entrypoint").read_text()
    entrypoint.write_text(text.replace("\\/run\\/secrets\\/", re.escape(f"{secrets}/").replace("/", "\\/")))
    entrypoint.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "KEY_FILE": f"{secrets}/key"}
    if content is not None:
        (secrets / "key").write_text(content)
    done = run(entrypoint, "sh", "-c", "echo $KEY", env=env)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"{secrets}/key" in done.stderr
    (secrets / "key").write_text("s3cret with spaces and 'quotes' $x\nnot this\n")
    done = run(entrypoint, "sh", "-c", 'echo "$KEY"', env=env)
    assert done.stdout == "s3cret with spaces and 'quotes' $x\n", done.stderr
