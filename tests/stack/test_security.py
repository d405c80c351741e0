"""What the running stack refuses. Each check is a test of its own."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.stack.compose import SERVICES, Answer, Stack, docker, inspect

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3600)]
EVIL = "evil.example"
WEB = ("mlflow", "dashboard", "serving")


def ask_as_admin(stack: Stack, path: str, **more: Any) -> Answer:
    """MLflow with every permission there is, so that it is not the account that is refused."""
    return stack.ask("mlflow", path, user="admin", password=stack.secret("mlflow_admin_password"), **more)


@pytest.fixture(scope="module", autouse=True)
def everything_up(stack: Stack) -> None:
    stack.compose("--profile", "study", "--profile", "serving", "up", "-d")
    stack.healthy(("database", *WEB))


# --- nobody without a password
# ---  ----------------------------------------------------------------------------------------------

ROUTES = [
    ("mlflow", "GET", "/"),
    ("mlflow", "GET", "/version"),
    ("mlflow", "GET", "/signup"),
    ("mlflow", "GET", "/static-files/index.html"),
    ("mlflow", "GET", "/api/3.0/mlflow/server-info"),
    ("mlflow", "POST", "/api/2.0/mlflow/experiments/search"),
    ("mlflow", "POST", "/api/2.0/mlflow/experiments/create"),
    ("mlflow", "POST", "/api/2.0/mlflow/runs/search"),
    ("mlflow", "POST", "/api/2.0/mlflow/runs/log-batch"),
    ("mlflow", "GET", "/api/2.0/mlflow/registered-models/search"),
    ("mlflow", "POST", "/api/2.0/mlflow/registered-models/alias"),
    ("mlflow", "GET", "/api/2.0/mlflow-artifacts/artifacts"),
    ("mlflow", "PUT", "/api/2.0/mlflow-artifacts/artifacts/a.txt"),
    ("mlflow", "GET", "/get-artifact?path=a&run_uuid=b"),
    ("mlflow", "GET", "/ajax-api/2.0/mlflow/users/list"),
    ("mlflow", "POST", "/api/2.0/mlflow/users/create"),
    ("mlflow", "POST", "/graphql"),
    ("mlflow", "POST", "/v1/traces"),
    ("dashboard", "GET", "/"),
    ("dashboard", "GET", "/dashboard"),
    ("dashboard", "GET", "/api/studies"),
    ("dashboard", "DELETE", "/api/studies/1"),
    ("dashboard", "GET", "/static/bundle.js"),
    ("serving", "GET", "/"),
    ("serving", "GET", "/model"),
    ("serving", "GET", "/ready"),
    ("serving", "GET", "/metrics"),
    ("serving", "GET", "/openapi.json"),
    ("serving", "POST", "/predict"),
]


@pytest.mark.parametrize(("service", "method", "path"), ROUTES)
def test_a_route_refuses_a_caller_with_no_password(
    stack: Stack, service: str, method: str, path: str
) -> None:
    assert stack.ask(service, path, method=method, user=None).status == 401


@pytest.mark.parametrize("service", WEB)
def test_health_is_open(stack: Stack, service: str) -> None:
    assert stack.ask(service, "/health", user=None).status == 200


def test_every_route_that_mlflow_knows_refuses_a_caller_with_no_password(stack: Stack) -> None:
    """Asked of the application itself, so that a new version's new routes are in it."""
    code = (
        "import json, os; os.environ['_MLFLOW_SGI_NAME'] = 'uvicorn'; "
        "from mlflow.server.auth import create_app; from mlflow.server import app as flask; "
        "api = create_app(); "
        "found = {(m, str(r)) for r in flask.url_map.iter_rules() for m in r.methods}; "
        "found |= {(m, r.path) for r in api.routes for m in getattr(r, 'methods', None) or ()}; "
        "print('ROUTES' + json.dumps(sorted(found)))"
    )
    said = stack.compose(
        *["exec", "-T", "mlflow", "/opt/imagenette/entrypoint", "python", "-c", code],
    )
    routes = json.loads(said.stdout.split("ROUTES", 1)[1])
    assert len(routes) > 200
    answers = {}
    for method, rule in routes:
        if method in ("OPTIONS", "HEAD") or rule == "/health":
            continue
        path = "".join(part.partition(">")[2] if "<" in rule else part for part in rule.split("<"))
        path = path.replace("{", "").replace("}", "") or "/"
        answers[method, rule] = stack.ask("mlflow", path, method=method, user=None).status
    assert {route: status for route, status in answers.items() if status != 401} == {}


@pytest.mark.parametrize("service", WEB)
@pytest.mark.parametrize(
    ("user", "password"), [("imagenette", "wrong password"), ("admin", "password1234"), ("nobody", "x" * 64)]
)
def test_wrong_names_and_passwords_are_refused(stack: Stack, service: str, user: str, password: str) -> None:
    path = {"mlflow": "/version", "dashboard": "/api/studies", "serving": "/model"}[service]
    assert stack.ask(service, path, user=user, password=password).status == 401


def test_the_ordinary_account_is_no_administrator(stack: Stack) -> None:
    body = json.dumps({"username": "friend", "password": "x" * 20})
    headers = {"Content-Type": "application/json"}
    made = stack.ask("mlflow", "/api/2.0/mlflow/users/create", method="POST", headers=headers, body=body)
    assert made.status == 403


def test_jobs_cannot_be_executed(stack: Stack) -> None:
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"job_name": "invoke_scorer", "params": {}})
    answer = ask_as_admin(stack, "/ajax-api/3.0/jobs/", method="POST", headers=headers, body=body)
    assert answer.status >= 400
    assert b"not enabled" in answer.body or b"disabled" in answer.body, answer.body


# --- nobody by another name, nor from another site's page
# ---  ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", WEB)
def test_a_wrong_host_is_refused(stack: Stack, service: str) -> None:
    path = {
        "mlflow": "/api/2.0/mlflow/registered-models/search",
        "dashboard": "/api/studies",
        "serving": "/model",
    }
    assert stack.ask(service, path[service], headers={"Host": EVIL}).status in (400, 403)


@pytest.mark.parametrize("service", WEB)
@pytest.mark.parametrize("origin", [f"http://{EVIL}", "null"])
def test_a_foreign_origin_is_refused(stack: Stack, service: str, origin: str) -> None:
    path = {"mlflow": "/api/2.0/mlflow/runs/search", "dashboard": "/api/studies", "serving": "/predict"}[
        service
    ]
    headers = {"Origin": origin, "Content-Type": "application/json"}
    answer = stack.ask(service, path, method="POST", headers=headers, body='{"experiment_ids": ["0"]}')
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


# --- no file but the artifacts'
# ---  ----------------------------------------------------------------------------------------------

TRAVERSALS = [
    "/api/2.0/mlflow-artifacts/artifacts/../../../../etc/passwd",
    "/api/2.0/mlflow-artifacts/artifacts/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/api/2.0/mlflow-artifacts/artifacts/..%2f..%2f..%2fetc%2fpasswd",
    "/api/2.0/mlflow-artifacts/artifacts/%252e%252e%252f%252e%252e%252fetc/passwd",
    "/api/2.0/mlflow-artifacts/artifacts//etc/passwd",
    "/api/2.0/mlflow-artifacts/artifacts?path=../../etc",
    "/api/2.0/mlflow-artifacts/artifacts?path=/etc",
    "/static-files/../../../../etc/passwd",
    "/static-files/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_mlflow_gives_no_file_outside_the_artifacts(stack: Stack, path: str) -> None:
    answer = ask_as_admin(stack, path)
    assert b"root:" not in answer.body
    assert b"passwd" not in answer.body or answer.status >= 400


def test_mlflow_writes_no_file_outside_the_artifacts(stack: Stack) -> None:
    path = "/api/2.0/mlflow-artifacts/artifacts/..%2f..%2ftmp%2fwritten"
    assert ask_as_admin(stack, path, method="PUT", body=b"x").status >= 400
    left = stack.compose("exec", "-T", "mlflow", "sh", "-c", "ls /tmp /")
    assert "written" not in left.stdout


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.js/../../etc/passwd"]
)
@pytest.mark.parametrize("service", ["dashboard", "serving"])
def test_the_others_give_no_file_either(stack: Stack, service: str, path: str) -> None:
    assert b"root:" not in stack.ask(service, path).body


@pytest.mark.parametrize("place", ["/etc", "file:///etc", "/run/secrets", "file:///run/secrets"])
def test_artifacts_of_an_experiment_cannot_be_the_servers_own_files(stack: Stack, place: str) -> None:
    """Neither by a place that a caller chose for an experiment, nor by a run's below it."""
    name = f"escape {place}"
    headers = {"Content-Type": "application/json"}
    post = functools.partial(stack.ask, "mlflow", method="POST", headers=headers)
    made = post(
        "/api/2.0/mlflow/experiments/create", body=json.dumps({"name": name, "artifact_location": place})
    )
    if made.status != 200:
        return
    run = post(
        "/api/2.0/mlflow/runs/create", body=json.dumps({"experiment_id": made.json()["experiment_id"]})
    ).json()["run"]["info"]
    for file in ("passwd", "../../../etc/passwd", "mlflow_admin_password", "../../mlflow_admin_password"):
        answer = stack.ask("mlflow", f"/get-artifact?path={file}&run_uuid={run['run_id']}")
        assert b"root:" not in answer.body
        assert stack.secret("mlflow_admin_password").encode() not in answer.body
    listed = stack.ask("mlflow", f"/api/2.0/mlflow/artifacts/list?run_id={run['run_id']}&path=..")
    assert b"passwd" not in listed.body


def test_a_model_version_cannot_come_from_the_servers_files(stack: Stack) -> None:
    headers = {"Content-Type": "application/json"}
    post = functools.partial(stack.ask, "mlflow", method="POST", headers=headers)
    post("/api/2.0/mlflow/registered-models/create", body=json.dumps({"name": "escape"}))
    body = json.dumps({"name": "escape", "source": "file:///etc"})
    assert post("/api/2.0/mlflow/model-versions/create", body=body).status == 400


# --- no pickles
# ---  ----------------------------------------------------------------------------------------------

PICKLED = """
import mlflow, sklearn.dummy, sys, tempfile
path = tempfile.mkdtemp() + "/model"
model = sklearn.dummy.DummyClassifier().fit([[0]], [0])
mlflow.sklearn.save_model(model, path, serialization_format="pickle")
try:
    mlflow.pyfunc.load_model(path)
except Exception as error:
    print("REFUSED", error)
"""


@pytest.mark.parametrize("service", ["trainer", "serving"])
def test_a_pickled_model_is_not_loaded(stack: Stack, service: str) -> None:
    said = stack.run("python", "-c", PICKLED, service=service)
    assert "REFUSED" in said
    assert "pickle" in said.lower()


def test_a_registered_pickle_is_not_served(stack: Stack) -> None:
    """`imagenette predict`, as the service, runs nothing that comes with a model."""
    save = PICKLED.split("try:")[0]
    folder = "/data/pickled"
    stack.run("python", "-c", f"{save}\nimport shutil; shutil.copytree(path, '{folder}', dirs_exist_ok=True)")
    said = stack.run("predict", "--model", folder, "/opt/imagenette/MLproject", check=False)
    assert "imagenette:" in said
    assert "Traceback" not in said


# --- containers that may do little
# ---  ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_runs_as_root(stack: Stack, service: str) -> None:
    found = stack.inspect(service)
    assert found["Config"]["User"] not in ("", "0", "root", "0:0")
    if found["State"]["Running"]:
        users = [line.split()[1] for line in docker("top", found["Id"], "-o", "pid,uid").splitlines()[1:]]
        assert users
        assert "0" not in users


@pytest.mark.parametrize("service", SERVICES)
def test_a_containers_root_is_read_only_and_it_has_no_capabilities(stack: Stack, service: str) -> None:
    host = stack.inspect(service)["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["PidsLimit"] > 0
    assert host["Memory"] > 0


@pytest.mark.parametrize("service", ["database", *WEB])
def test_a_running_container_cannot_write_its_root_nor_gain_capabilities(stack: Stack, service: str) -> None:
    said = stack.compose(
        "exec",
        "-T",
        service,
        "sh",
        "-c",
        "touch /etc/x 2>&1; touch /opt/x 2>&1; grep CapEff /proc/self/status",
    ).stdout
    assert "CapEff:\t0000000000000000" in said
    assert said.count("Read-only file system") + said.count("Permission denied") == 2


def test_nothing_but_loopback_is_published(stack: Stack) -> None:
    published = [
        binding["HostIp"]
        for service in SERVICES
        for bindings in (stack.inspect(service)["NetworkSettings"]["Ports"] or {}).values()
        for binding in bindings or ()
    ]
    assert set(published) == {"127.0.0.1"}
    assert len(published) == len(WEB)


@pytest.mark.parametrize("service", ["database", "accounts", "worker"])
def test_what_nobody_outside_needs_publishes_nothing(stack: Stack, service: str) -> None:
    assert not stack.inspect(service)["HostConfig"]["PortBindings"]


def test_the_database_has_no_way_out(stack: Stack) -> None:
    networks = list(stack.inspect("database")["NetworkSettings"]["Networks"])
    assert networks == [f"{stack.name}_database"]
    assert inspect_network(networks[0])["Internal"]


def inspect_network(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("network", "inspect", name))[0]
    return found


def test_serving_cannot_reach_the_database(stack: Stack) -> None:
    code = "import socket; socket.create_connection(('database', 5432), 3)"
    done = stack.compose("exec", "-T", "serving", "python", "-c", code, check=False)
    assert done.returncode != 0


# --- databases apart
# ---  ----------------------------------------------------------------------------------------------

CONNECT = (
    "import psycopg; "
    "psycopg.connect(host='database', user='{user}', dbname='{database}', password='{password}')"
)


@pytest.mark.parametrize(
    ("user", "database"), [("optuna", "mlflow"), ("mlflow", "optuna"), ("optuna", "postgres")]
)
def test_a_databases_user_cannot_open_the_other(stack: Stack, user: str, database: str) -> None:
    password = stack.secret(f"{user}_database_password")
    code = CONNECT.format(user=user, database=database, password=password)
    done = stack.compose("exec", "-T", "dashboard", "python", "-c", code, check=False)
    assert "permission denied" in done.stderr
    own = CONNECT.format(user=user, database=user, password=password)
    stack.compose("exec", "-T", "dashboard", "python", "-c", own)


@pytest.mark.parametrize("password", ["", "wrong", "postgres"])
def test_the_database_refuses_wrong_passwords(stack: Stack, password: str) -> None:
    code = CONNECT.format(user="postgres", database="postgres", password=password)
    done = stack.compose(
        "exec", "-T", "dashboard", "env", "-u", "PGPASSWORD", "python", "-c", code, check=False
    )
    assert "authentication failed" in done.stderr or "no password supplied" in done.stderr


# --- secrets stay where they belong
# ---  ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_stands_in_a_containers_description(stack: Stack, service: str) -> None:
    told = json.dumps(stack.inspect(service))
    assert [name for name, secret in stack.secrets().items() if secret in told] == []


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_stands_in_a_log(stack: Stack, service: str) -> None:
    told = ""
    for container in stack.containers(service):
        done = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
        told += done.stdout + done.stderr
    assert [name for name, secret in stack.secrets().items() if secret in told] == []


@pytest.mark.parametrize("image", ["database", "tracking", "trainer", "serving"])
def test_no_secret_stands_in_an_image_or_its_history(stack: Stack, image: str) -> None:
    name = f"{stack.env['IMAGES']}-{image}"
    told = docker("history", "--no-trunc", name) + json.dumps(inspect(name))
    assert [secret for secret, value in stack.secrets().items() if value in told] == []
    listing = docker(
        "run", "--rm", "--network", "none", "--entrypoint", "sh", name, "-c", "find / -xdev; true"
    )
    files = [path for path in listing.splitlines() if not path.startswith("/opt/venv")]
    assert "/etc/hostname" in files
    assert [path for path in files if "/secrets/" in path] == []
    assert {Path(path).name for path in files} & (set(stack.secrets()) - {"password"}) == set()


@pytest.mark.parametrize(
    ("service", "own"),
    [
        ("database", {"postgres_password", "mlflow_database_password", "optuna_database_password"}),
        ("mlflow", {"mlflow_database_password", "mlflow_admin_password", "mlflow_session_key"}),
        ("dashboard", {"optuna_database_password", "password"}),
        ("serving", {"password"}),
    ],
)
def test_a_service_has_no_secret_but_its_own(stack: Stack, service: str, own: set[str]) -> None:
    told = stack.compose(
        "exec",
        "-T",
        service,
        "sh",
        "-c",
        "cat /run/secrets/*; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'",
    ).stdout
    assert {name for name, secret in stack.secrets().items() if secret in told} == own


@pytest.mark.parametrize("service", ["mlflow", "dashboard", "serving"])
def test_no_secret_stands_on_a_command_line(stack: Stack, service: str) -> None:
    told = docker("top", stack.containers(service)[0], "-o", "pid,args")
    assert [name for name, secret in stack.secrets().items() if secret in told] == []


def test_a_missing_secret_is_one_line(stack: Stack) -> None:
    said = docker_fails(
        "run",
        "--rm",
        "-e",
        "PASSWORD_FILE=/run/secrets/password",
        f"{stack.env['IMAGES']}-tracking",
        "python",
    )
    assert said.strip().splitlines() == [
        "imagenette: secret /run/secrets/password cannot be read or is empty; docker/make-secrets makes them"
    ]


def docker_fails(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    return done.stderr
