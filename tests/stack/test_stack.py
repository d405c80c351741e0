"""The stack end to end: a study whose workers and database die, promotion, serving, down and up again."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from imagenette.tracking import views
from tests.browser import browsing, needs_chromium
from tests.stack.compose import SERVERS, Stack, docker, inspect, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3600)]
STUDY = "weight-decay-smoke"
VIEW = "mlflow.sharedViewState."


def cells(stack: Stack) -> dict[str, str]:
    """State of each cell."""
    return dict(line.split("|") for line in stack.sql("optuna", "SELECT cell, state FROM imagenette_cells"))


def page_of_study(stack: Stack) -> str:
    """The link that a driver prints."""
    experiment = stack.call("experiments/get-by-name?experiment_name=imagenette")["experiment"]
    path = views.path(experiment["experiment_id"], views.key_of_study(STUDY))
    return f"http://localhost:{stack.ports['mlflow']}/{path}"


def finished_runs(stack: Stack) -> list[dict[str, str]]:
    """Tags of the study's finished trainings."""
    experiment = stack.call("experiments/get-by-name?experiment_name=imagenette")["experiment"]
    found = stack.call(
        "runs/search",
        {
            "experiment_ids": [experiment["experiment_id"]],
            "filter": "attributes.status = 'FINISHED'",
            "max_results": 100,
        },
    )["runs"]
    tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in found]
    return [of for of in tags if of.get("study") == STUDY and "arm" in of and of.get("role") == "trial"]


@pytest.fixture(scope="module")
def workers(stack: Stack) -> list[str]:
    """Three that have run the study to its end, while the first was killed and the database restarted."""
    stack.compose("--profile", "study", "up", "-d", "--scale", "worker=3")
    workers = stack.containers("worker")
    until(lambda: "running" in cells(stack).values(), 180, lambda: stack.compose("logs", "worker").stdout)
    time.sleep(10)  # into a training
    docker("kill", workers[0])
    docker("restart", "-t", "60", stack.containers("database")[0])

    def ended() -> bool:
        return all(inspect(worker)["State"]["Status"] == "exited" for worker in workers)

    until(ended, 900, lambda: stack.compose("logs", "--tail", "40", "worker").stdout)
    return workers


def test_six_cells_on_three_workers_while_a_worker_is_killed_and_the_database_restarted(
    stack: Stack, workers: list[str]
) -> None:
    assert [inspect(worker)["State"]["ExitCode"] for worker in workers] == [137, 0, 0]
    assert set(cells(stack).values()) == {"done"}
    assert len(cells(stack)) == 6
    trials = stack.sql("optuna", "SELECT state FROM trials")
    assert Counter(trials)["COMPLETE"] == 6
    arms = Counter(tags["arm"] for tags in finished_runs(stack))
    assert sorted(arms.values()) == [1] * 6, arms


@pytest.mark.usefixtures("workers")
def test_the_ordinary_account_makes_the_views_and_the_links_lead_to_the_published_port(stack: Stack) -> None:
    experiment = stack.call("experiments/get-by-name?experiment_name=imagenette")["experiment"]
    tags = {tag["key"]: tag["value"] for tag in experiment["tags"]}
    assert tags[f"{VIEW}leaderboard"] == views.leaderboard()
    assert tags[f"{VIEW}{views.key_of_study(STUDY)}"] == views.of_study(STUDY, ["weight_decay"])
    assert page_of_study(stack) in stack.compose("logs", "worker").stdout


@needs_chromium
@pytest.mark.usefixtures("workers")
def test_the_link_opens_on_the_study_s_arms_in_a_browser(stack: Stack, tmp_path: Path) -> None:
    page = page_of_study(stack)
    with browsing(tmp_path / "profile") as driver:
        driver.set_window_size(1900, 1000)
        driver.get(page.replace("//", f"//imagenette:{stack.secret('password')}@", 1))  # the browser keeps it
        driver.get("about:blank")
        driver.get(page)

        def shown() -> str:
            return str(driver.find_element("tag name", "body").text)

        until(lambda: "Group: weight_decay=0.0005" in shown(), 60, shown)
        assert "selected/test_accuracy" in shown()
        assert "weight_decay=0.0005 seed=1" in shown()


@pytest.mark.usefixtures("workers")
def test_promotion_and_serving_inside_the_stack(stack: Stack, picture: bytes) -> None:
    assert "champion" in stack.run("promote", "--name", "imagenette")
    stack.compose("--profile", "serving", "up", "-d", "serving")
    stack.healthy(("serving",))
    until(lambda: stack.ask("serving", "/ready").status == 200, 120)
    form = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + picture
        + b"\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = stack.ask("serving", "/predict", method="POST", headers=headers, body=form)
    assert answer.status == 200, answer.body
    assert answer.json()["model"]["version"] == 1
    assert len(answer.json()["predictions"][0]["top"]) == 3


def test_an_mlflow_project_runs_inside_the_trainer_image(stack: Stack) -> None:
    said = stack.run(
        *["mlflow", "run", ".", "--env-manager", "local", "--experiment-name", "imagenette"],
        *["-P", "data=digits", "-P", "epochs=1", "-P", "limit=320", "-P", "output=/data/runs/project"],
    )
    assert "finished" in said, said
    assert "succeeded" in said, said


@pytest.mark.usefixtures("workers")
def test_a_report_is_made_by_the_image_without_torch(stack: Stack) -> None:
    """As a one-off container of MLflow's own image, with the ordinary account."""
    code = "import importlib.util as u, subprocess, sys; assert u.find_spec('torch') is None; " + (
        f"sys.exit(subprocess.run(['imagenette', 'report', '{STUDY}', '--out', '/tmp/report']).returncode)"
    )
    said = stack.compose(
        *["run", "--rm", "-T", "-e", "MLFLOW_TRACKING_USERNAME=admin"],
        *["-e", "MLFLOW_TRACKING_PASSWORD_FILE=/run/secrets/mlflow_admin_password"],
        *["accounts", "python", "-c", code],
    )
    assert "report.html" in said.stdout + said.stderr


@pytest.mark.usefixtures("workers")
def test_down_and_up_again_keeps_everything(stack: Stack) -> None:
    before = json.dumps([cells(stack), sorted(tags["arm"] for tags in finished_runs(stack))])
    profiles = ["--profile", "study", "--profile", "serving"]
    stack.compose(*profiles, "down")
    assert not stack.containers("database")
    stack.compose("--profile", "serving", "up", "-d")
    stack.healthy((*SERVERS, "serving"))
    assert json.dumps([cells(stack), sorted(tags["arm"] for tags in finished_runs(stack))]) == before
    until(lambda: stack.ask("serving", "/ready").status == 200, 120)  # the champion, its model fetched again
    stack.compose("--profile", "study", "up", "-d", "worker")
    worker = stack.containers("worker")[0]
    until(lambda: inspect(worker)["State"]["Status"] == "exited", 120)
    assert inspect(worker)["State"]["ExitCode"] == 0  # nothing was left to train
    assert Counter(stack.sql("optuna", "SELECT state FROM trials"))["COMPLETE"] == 6


def test_a_container_uses_no_more_threads_than_the_cores_it_is_given(stack: Stack) -> None:
    said = stack.run("python", "-c", "from imagenette.processes import cores; print('cores', cores())")
    assert "cores 2" in said
