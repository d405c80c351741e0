"""`imagenette ui`: MLflow's pages on a database file, the link that opens on the runs, and nothing left."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from imagenette.server.ui import _pages
from imagenette.tracking import views
from tests.server.served import clean_environment
from tests.waiting import wait_until

STUDIES = [f"lr-{letter}" for letter in "abcdefghijkl"]
COMMAND = [sys.executable, "-m", "imagenette", "ui"]


def test_it_serves_the_runs_of_a_file_and_leaves_no_process(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.create_run("0", tags={"imagenette.uid": "u"}).info.run_id
    views.keep(client, "0", {views.key_of_study(name): views.of_study(name, ["lr"]) for name in STUDIES})
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        env = clean_environment()
        process = subprocess.Popen([*COMMAND, "--port", "0"], stdout=out, stderr=err, cwd=tmp_path, env=env)
    try:
        wait_until(lambda: (tmp_path / "out").read_text() or process.poll() is not None, 300)
        wait_until(lambda: "more studies" in (tmp_path / "err").read_text() or process.poll() is not None, 30)
        links, notes = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
        found = re.match(
            r"(http://127\.0\.0\.1:\d+)/#/experiments/0/runs\?workflowType=machine_learning.*=leaderboard\n",
            links,
        )
        assert found, (links, notes)
        assert "in experiment 'Default'" in notes
        shown = re.findall("viewStateShareKey=study-(.*)", links)
        assert shown == STUDIES[:10] == re.findall("the study (.*), by arm", notes)
        assert "and 2 more studies" in notes
        assert MlflowClient(found[1]).get_run(run).data.tags["imagenette.uid"] == "u"
        with urllib.request.urlopen(found[1], timeout=30) as page:
            assert b"<title>MLflow</title>" in page.read()
        links_only = subprocess.run(
            COMMAND, capture_output=True, text=True, env=env | {"MLFLOW_TRACKING_URI": found[1]}, timeout=120
        )
        assert links_only.stdout == links, "a server that is there already is not served again"
        children = psutil.Process(process.pid).children(recursive=True)
        jobs = [p.pid for p in children if "huey" in " ".join(p.cmdline())]
        assert jobs == [], "the pages need no queue of jobs"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not [child for child in children if child.is_running()]
    finally:
        process.kill()


def test_no_other_user_of_the_machine_reads_the_store_s_password(tmp_path: Path) -> None:
    uri = "postgresql://me:planted@lab.example/mlflow"
    pages = _pages(uri, 5000, tmp_path / "log")
    assert "planted" not in " ".join(map(str, pages.command)), "what ps shows to everybody"
    assert pages.env is not None
    assert pages.env["MLFLOW_BACKEND_STORE_URI"] == uri


@pytest.mark.parametrize("words", [[], ["--port", "0"]])
def test_nothing_is_made_where_there_are_no_runs(tmp_path: Path, words: list[str]) -> None:
    done = subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, cwd=tmp_path, env=clean_environment()
    )
    assert done.returncode == 2
    assert "there is no such file, so no run yet" in done.stderr
    assert list(tmp_path.iterdir()) == []
