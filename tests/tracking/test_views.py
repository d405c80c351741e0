"""Views of an experiment in MLflow's pages: made, renewed, made at once by two, left out where refused."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from imagenette.errors import InputError
from imagenette.tracking import views
from imagenette.tracking.client import connect

TAG = "mlflow.sharedViewState."
RUN_NAME = "attributes.`Run Name`"


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


def keep(uri: str, knobs: list[str]) -> None:
    client = connect(uri)
    mine = {views.LEADERBOARD: views.leaderboard(), views.key_of_study("s"): views.of_study("s", knobs)}
    views.keep(client, "0", mine)


def test_a_view_is_kept_as_a_tag_renewed_where_it_changed_and_short_enough(store: str):
    keep(store, ["lr"])
    keep(store, ["weight_decay"])
    tags = connect(store).get_experiment("0").tags
    board, study = (json.loads(tags[f"{TAG}{key}"]) for key in ("leaderboard", "study-s"))
    assert board["selectedColumns"][0] == "metrics.`selected/test_accuracy`"
    assert (board["orderByKey"], board["orderByAsc"]) == ("metrics.`selected/test_accuracy`", False)
    assert "params.`weight_decay`" in study["selectedColumns"]
    assert study["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "arm"}]
    assert set(study["columnOrder"]) == set(study["columnWidths"]) == {RUN_NAME, *study["selectedColumns"]}
    assert max(map(len, tags.values())) < 5000


def test_two_processes_may_make_them_at_once(store: str):
    connect(store).search_experiments()  # makes the database
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.starmap(keep, [(store, ["lr"])] * 4)
    assert f"{TAG}study-s" in connect(store).get_experiment("0").tags


def test_what_a_server_refuses_is_left_out(store: str):
    views.keep(connect(store), "12345", {views.LEADERBOARD: views.leaderboard()})  # no such experiment
    views.keep(connect("http://127.0.0.1:9"), "0", {})
    long = views.of_study("s", [f"knob{n}" for n in range(1000)])
    views.keep(connect(store), "0", {"long": long})
    assert f"{TAG}long" not in connect(store).get_experiment("0").tags


def test_links_are_for_servers_with_pages_and_hold_no_password():
    assert views.link("sqlite:///mlflow.db", "1") is None
    assert views.link("http://me:secret@host:5000/", "1") == (
        "http://host:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=leaderboard"
    )
    assert views.link_of_run("https://host/mlflow", "1", "abc") == (
        "https://host/mlflow/#/experiments/1/runs/abc?workflowType=machine_learning"
    )
    assert views.path("1", charts=True).endswith("&compareRunsMode=CHART")


def test_links_lead_where_browsers_reach_the_pages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IMAGENETTE_PAGES_URI", "https://lab.example/mlflow/")
    run = "https://lab.example/mlflow/#/experiments/1/runs/abc?workflowType=machine_learning"
    assert views.link_of_run("http://mlflow:5000", "1", "abc") == run
    assert views.link_of_run("postgresql://optuna@database/mlflow", "1", "abc") == run


def test_no_two_studies_share_a_view_and_a_name_that_no_filter_holds_is_refused():
    assert views.key_of_study("weight-decay") == "study-weight-decay"
    assert views.key_of_study("a b") != views.key_of_study("a-b") != views.key_of_study("a/b")
    with pytest.raises(InputError, match="cannot be searched for"):
        views.of_study('it\'s "both"', [])
