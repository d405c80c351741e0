"""From a real tracking server to files: every form, every oddity named, nothing needed but the server."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from imagenette.artifacts import read_table
from imagenette.report.tables import TABLES
from imagenette.report.write import BEGIN, END
from tests.report.conftest import Report
from tests.report.store import DATA, IMAGES, Store, outline
from tests.tracking.tracking_helpers import Server
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
FORMS = {"report.html", "report.md", "arms.csv", "arms.tex", "comparisons.csv", "comparisons.tex", "runs.csv"}
FORMS |= {"ranking.tex", "spread.tex"}
FIGURES = {"accuracy", "differences", "test-curves", "train-test-curves", "baseline-curves", "cost"}
FIGURES |= {"optimism"}


def odd(out: Path, study: str) -> str:
    """What a report says is odd."""
    text = (out / study / "report.md").read_text()
    return text.partition("## What is odd")[2].partition("## What is missing")[0]


def test_a_study_in_every_form(made: Path):
    folder = made / "decay"
    assert {path.name for path in folder.iterdir()} == {*FORMS, "figures"}
    assert [f"{name}.tex" for name in TABLES] == sorted(name for name in FORMS if name.endswith(".tex"))
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{kind}" for name in FIGURES for kind in ("svg", "pdf", "png")
    }
    assert {path.name for path in made.iterdir()} == {"report.html", "report.md", "decay"}
    assert "## What is odd" not in (made / "report.md").read_text()


def test_tables_hold_the_numbers_that_were_tracked(made: Path):
    arms = read_table(made / "decay/arms.csv")
    assert [row["arm"] for row in arms] == ["weight_decay=0.0", "weight_decay=0.0005", "weight_decay=0.01"]
    shares = [1 - (20 + seed) / IMAGES for seed in (1, 2)]
    first = {name: float(arms[0][f"selected/test_accuracy{name}"]) for name in ("", " sd", " low", " high")}
    assert first[""] == pytest.approx(sum(shares) / 2)
    assert first[" sd"] == pytest.approx(abs(shares[0] - shares[1]) / 2**0.5)
    assert first[" high"] - first[""] == pytest.approx(12.7062 * first[" sd"] / 2**0.5, rel=1e-4)  # t, 1 d.f.
    assert arms[0]["reference compatible"] == "yes"
    assert (arms[0]["seconds"], arms[0]["images_per_second"], arms[0]["weights_bytes"]) == (
        "180",
        "102",
        "44776624",
    )
    verdicts = {row["arm"]: row["verdict"] for row in read_table(made / "decay/comparisons.csv")}
    assert verdicts == {"weight_decay=0.0": "open", "weight_decay=0.01": "worse"}
    assert len(read_table(made / "decay/runs.csv")) == 6
    tex = (made / "decay/arms.tex").read_text()
    assert r"\toprule" in tex
    assert r"weight\_decay=0.01" in tex
    assert r"89.25 $\pm$ 0.35 {[}86.07, 92.43]" in tex
    text = (made / "report.md").read_text()
    assert "weight_decay=0.01 is worse than weight_decay=0.0005 by " in text
    assert "for new seeds and images; corrected p" in text
    assert "| weight_decay=0.0 | 2 | 89.25 ± 0.35 [86.07, 92.43] |" in text


def test_the_report_is_shown_under_the_studys_parent_run(store: Store, made: Path):
    (parent,) = store.client.search_runs([store.id], "tags.study = 'decay' AND tags.role = 'study'")
    shown = {item.path for item in store.client.list_artifacts(parent.info.run_id, "report")}
    assert {f"report/{name}" for name in FORMS} <= shown
    here = store.client.download_artifacts(parent.info.run_id, "report/report.html")
    assert Path(here).read_text() == (made / "decay/report.html").read_text()


def test_a_page_links_to_the_study_where_browsers_reach_it(report: Report, made: Path, tmp_path: Path):
    assert "in MLflow</a>" not in (made / "report.html").read_text(), "loopback is of no use to others"
    pages = "https://me:secret@lab.example/mlflow"
    assert report("decay", "--out", tmp_path, "--no-log", IMAGENETTE_PAGES_URI=pages).returncode == 0
    page = (tmp_path / "report.html").read_text()
    assert re.search(r'href="https://lab\.example/mlflow/#/experiments/\d+/runs/\w+\?workflowType=', page)
    assert "secret" not in page


def children_seconds() -> float:
    """CPU seconds of child processes that have ended: the same on a busy machine, nearly."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_it_needs_no_torch_only_the_server(store: Store, tmp_path: Path):
    """In an environment without torch and torchvision: a folder of links to all other packages."""
    import mlflow

    site = Path(mlflow.__file__).parents[1]
    packages = tmp_path / "packages"
    packages.mkdir()
    without = ("torch", "torchvision", "torchgen", "functorch", "nvidia", "triton", "optuna", "imagenette")
    for path in site.iterdir():
        if not path.name.startswith(without):
            (packages / path.name).symlink_to(path)
    (packages / "imagenette").symlink_to(ROOT / "imagenette")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages), "HOME": str(tmp_path)}
    env |= {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_EXPERIMENT_NAME": store.experiment}
    python = [os.path.realpath(sys.executable), "-S"]  # without its own packages

    absent = subprocess.run([*python, "-c", "import torch"], env=env, capture_output=True, text=True)
    assert "No module named 'torch'" in absent.stderr
    before = children_seconds()
    done = subprocess.run(
        [*python, "-m", "imagenette", "report", "decay", "--no-log", "--out", str(tmp_path / "out")],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert children_seconds() - before < 20, "4 to 9 s of an idle core"
    assert {path.name for path in (tmp_path / "out/decay").iterdir()} == {*FORMS, "figures"}


def test_every_broken_input_is_named_and_none_breaks_the_report(store: Store, report: Report, tmp_path: Path):
    plan = outline("broken", seeds=(1, 2, 3, 4), references={"weight_decay=0.0": {"best/test_accuracy": 0.9}})
    store.parent(plan, status="failed")
    ours, base = "weight_decay=0.0", "weight_decay=0.0005"
    for seed in (1, 2, 3):
        store.run("broken", base, seed)
    bare = store.run("broken", ours, 1, predictions=False, history=False)
    holed = store.run(
        "broken", ours, 2, claims={"final/test_accuracy": None, "best/test_accuracy": float("nan")}
    )
    first = store.run("broken", ours, 3, wrong=30)
    second = store.run("broken", ours, 3, wrong=2)
    cut = store.run("broken", ours, 4, predictions="image,label,predicted\nval/0.png,cat")
    other = store.run("broken", base, 4, data_digest="f" * 64)
    store.run("broken", "weight_decay=0.01", 1, status="failed", reason="loss not finite at epoch 2")
    store.run("broken", "weight_decay=0.01", 2, status="running")
    huge = store.run("broken", "weight_decay=0.01", 3, claims={"selected/test_accuracy": 1.8e308})
    liar = store.run("broken", "weight_decay=0.01", 4, wrong=100, claims={"selected/test_accuracy": 0.99})
    stranger = store.run("broken", "weight_decay=7", 1)

    done = report("broken", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    said = odd(tmp_path, "broken")
    assert f"run {bare} ({ours}, seed 1): has no stored predictions (predictions.csv is not there" in said
    assert f"run {holed} ({ours}, seed 2): has no final/test_accuracy." in said
    assert f"run {holed} ({ours}, seed 2): claims best/test_accuracy=nan, which is no share" in said
    assert f"Two runs for {ours}, seed 3: {first} came first and counts, {second} does not." in said
    assert f"run {cut} ({ours}, seed 4): has no stored predictions (predictions.csv is cut off)" in said
    assert f"The runs are on 2 data sets: {DATA[:8]} (10 runs), ffffffff (1 runs)." in said
    assert other in said
    assert f"run {huge} " in said
    assert "claims selected/test_accuracy=inf, which is no share" in said
    assert (
        f"run {liar} (weight_decay=0.01, seed 4): claims selected/test_accuracy=0.9900, its predictions say "
        "0.5000" in said
    )
    assert f"run {stranger} (weight_decay=7, seed 1) is left out: the study plans no arm" in said
    html = (tmp_path / "report.html").read_text()
    assert "seed 1: failed: loss not finite at epoch 2; seed 2: running" in html
    assert "seed 4: its run is on other data" in html
    arms = read_table(tmp_path / "broken/arms.csv")
    assert float(arms[0]["selected/test_accuracy"]) == pytest.approx((0.9 + 0.9 + 0.85 + 0.9) / 4)
    assert arms[0]["final/test_accuracy n"] == "3"


def test_an_empty_study_and_one_without_a_plan(store: Store, report: Report, tmp_path: Path):
    store.parent(outline("empty"))
    store.parent("{nonsense", name="planless")
    store.run("planless", "lr=0.1", 1)
    store.run("planless", "lr=0.2", 1)
    store.run("parentless", "", None)
    done = report("empty", "planless,parentless", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "The study is empty: it has no run at all." in odd(tmp_path, "empty")
    assert "| weight_decay=0.0 | 0 of 2 | missing |" in (tmp_path / "empty/report.md").read_text()
    assert "What the study planned is not on the server" in odd(tmp_path, "planless")
    assert "outline.json: " in odd(tmp_path, "planless")
    assert "Arms are compared with lr=0.1: no baseline is named." in odd(tmp_path, "planless")
    assert "no parent run, so nothing says what was planned" in odd(tmp_path, "parentless")
    assert (tmp_path / "report.html").read_text().count("<section") == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dekay"], "imagenette: study dekay: no run in experiment 'reports' of "),
        (['it\'s "quoted"'], "has both kinds of quotes"),
        (["decay", "--out", "/proc/none"], "imagenette: out=/proc/none cannot be written: "),
        (["decay", "--readme", "/none.md"], "imagenette: /none.md: No such file"),
    ],
)
def test_wrong_input_is_one_line(report: Report, tmp_path: Path, words: list[str], said: str):
    place = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    done = report(*words, *place, "--no-log")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "--readme" in words or not (tmp_path / "out").exists()


def test_no_experiment_and_no_server_are_one_line(report: Report, tmp_path: Path):
    done = report("--out", tmp_path, MLFLOW_EXPERIMENT_NAME="none such")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "experiment 'none such' is not on http://127.0.0.1" in done.stderr
    done = report("--out", tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "does not answer" in done.stderr


def test_results_go_between_two_comments_of_a_document(report: Report, tmp_path: Path):
    document = tmp_path / "README.md"
    document.write_text(f"# Mine\n\n{BEGIN}\nold results\n{END}\n\nThe rest.\n")
    done = report("decay", "--out", tmp_path / "docs/results", "--readme", document, "--no-log")
    assert done.returncode == 0, done.stderr
    text = document.read_text()
    assert text.startswith(f"# Mine\n\n{BEGIN}\n### Weight decay\n")
    assert text.endswith(f"{END}\n\nThe rest.\n")
    assert "old results" not in text
    assert "(docs/results/decay/figures/accuracy.png)" in text


def test_a_run_that_stands_for_another_shows_that_ones_figures(store: Store, report: Report, tmp_path: Path):
    plan = outline(
        "again", arms={"a": {"weight_decay": 0.0}, "b": {"weight_decay": 0.01}}, baseline="a", seeds=(1,)
    )
    store.parent(plan)
    source = store.run("elsewhere", "x", 1, wrong=40)
    gone = store.run("elsewhere", "y", 1, wrong=40)
    middle = store.run("other", "a", 1, predictions=False, history=False, role="reused", reused_run=source)
    store.run("again", "a", 1, predictions=False, history=False, role="reused", reused_run=middle)
    store.run("again", "b", 1, predictions=False, history=False, role="reused", reused_run=gone)
    store.client.delete_run(gone)
    done = report("again", "--out", tmp_path, "--no-log")
    assert done.returncode == 0, done.stderr
    (run,) = read_table(tmp_path / "again/runs.csv")
    assert (run["reused_run"], run["selected/test_accuracy"], run["test_images"]) == (source, "0.8", "200")
    assert "seed 1: the run that it was taken from is deleted" in (tmp_path / "report.html").read_text()


def test_a_watched_report_follows_the_study_to_its_end(store: Store, tmp_path: Path):
    parent = store.parent(outline("live", seeds=(1,)), status="running")
    store.run("live", "weight_decay=0.0005", 1)
    env = {**os.environ, "MLFLOW_TRACKING_URI": store.uri, "MLFLOW_EXPERIMENT_NAME": store.experiment}
    quick = "from imagenette import report; report.WATCH_SECONDS = 1; from imagenette.cli import main; main()"
    command = [sys.executable, "-c", quick, "report", "live", "--watch", "--out", str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        page = tmp_path / "live/report.html"
        wait_until(
            lambda: page.exists() and "1 of 3 runs finished; the study is running" in page.read_text(), 60
        )
        assert 'http-equiv="refresh" content="1"' in page.read_text()
        for arm in ("weight_decay=0.0", "weight_decay=0.01"):
            store.run("live", arm, 1)
        wait_until(lambda: "3 runs finished; the study is running" in page.read_text(), 30)
        store.client.set_tag(parent, "status", "finished")
        store.client.set_terminated(parent)
        assert process.wait(30) == 0
    assert "refresh" not in page.read_text().partition("<style>")[0]
    assert "3 runs finished" in page.read_text()


def test_mlflow_run_makes_a_report_and_its_run_says_what_came_of_it(store: Store, tmp_path: Path):
    clean = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    env = {
        **clean,
        "MLFLOW_TRACKING_URI": store.uri,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", "report", "--env-manager", "local"]
    command += ["--experiment-name", store.experiment, "-P", "studies=decay", "-P", f"out={tmp_path}/out"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/report.html").exists()
    client = MlflowClient(store.uri)
    (run,) = client.search_runs([store.id], "tags.role = 'report'")
    assert run.data.tags["mlflow.note.content"].startswith("decay in experiment 'reports': 6 runs finished\n")
    shutil.rmtree(tmp_path / "out")


def test_a_report_of_everything_names_what_it_cannot_read(server: Server, tmp_path: Path, report: Report):
    """Names that cannot be searched for, that meet in one folder, that are no folder's; a champion of no
    run."""
    store = Store(server.uri, "oddities", tmp_path / "made")
    names = ["a b", "a_b", "..", "pointed-at", "<script>alert(1)</script>", 'it\'s "x"']
    html = ""
    for name in names:
        store.parent(outline("x", seeds=(1,), title=f"{name} {END} | [a](http://b)"), name=name)
        store.run(name, "weight_decay=0.0", 1)
    store.run("..", "weight_decay=0.0005", 1, role="reused")  # of nothing
    store.client.create_registered_model("odd")
    version = store.client.create_model_version("odd", "s3://nowhere/model")
    store.client.set_registered_model_alias("odd", "champion", version.version)
    document = tmp_path / "README.md"
    document.write_text(f"{BEGIN}\n{END}\n")
    out = tmp_path / "out"
    words = ("--out", out, "--readme", document, "--name", "odd")
    for studies in ((), ("a_b",)):  # what was put into the document does not stand in the way of the next
        done = report(*studies, *words, MLFLOW_EXPERIMENT_NAME="oddities")
        assert done.returncode == 0, done.stderr
        html = (out / "report.html").read_text() if not studies else html
    folders = {path.name for path in out.iterdir() if path.is_dir()}
    assert len(folders) == len(names)
    assert {"a_b", "pointed-at"} <= folders
    assert html.count("<section") == len(names)
    assert "<script>alert" not in html
    assert "has both kinds of quotes" in html
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_only_the_report_s_own_files_are_sent_and_removed(store: Store, report: Report, tmp_path: Path):
    parent = store.parent(outline("mine", seeds=(1,)))
    base, other = (store.run("mine", arm, 1) for arm in ("weight_decay=0.0005", "weight_decay=0.0"))
    (tmp_path / "mine/figures").mkdir(parents=True)
    for name in ("mine/checkpoint.pt", "mine/figures/mine.png"):
        (tmp_path / name).write_text("mine")
    assert report("mine", "--out", tmp_path).returncode == 0
    sent = {item.path for item in store.client.list_artifacts(parent, "report")}
    single = FORMS - {"ranking.tex", "spread.tex"}  # one run an arm tells neither
    assert sent == {*(f"report/{name}" for name in single), "report/figures"}
    store.client.delete_run(other)
    assert report("mine", "--out", tmp_path).returncode == 0
    left = {path.name for path in (tmp_path / "mine").iterdir()}
    assert left == {
        "report.html",
        "report.md",
        "arms.csv",
        "arms.tex",
        "runs.csv",
        "figures",
        "checkpoint.pt",
    }
    assert (tmp_path / "mine/figures/mine.png").read_text() == "mine"
    assert (tmp_path / "mine/figures/accuracy.png").exists()
    assert base in (tmp_path / "mine/runs.csv").read_text()


def test_a_cut_off_history_is_named_and_gives_no_time(store: Store, report: Report, tmp_path: Path):
    store.parent(outline("cut", seeds=(1,)))
    run = store.run("cut", "weight_decay=0.0", 1)
    text = Path(store.client.download_artifacts(run, "history.csv")).read_text()
    (tmp_path / "history.csv").write_text("".join(text.splitlines(keepends=True)[:2]))
    store.client.log_artifact(run, str(tmp_path / "history.csv"))
    assert report("cut", "--out", tmp_path, "--no-log").returncode == 0
    assert f"run {run} (weight_decay=0.0, seed 1): has curves up to epoch 1 of 3." in odd(tmp_path, "cut")
    assert read_table(tmp_path / "cut/arms.csv")[0]["seconds"] == ""


def test_the_champion_of_the_same_data_is_shown_with_its_mistakes(
    store: Store, report: Report, tmp_path: Path
):
    plan = outline("crowned", seeds=(1,))
    store.parent(plan)
    run = store.run("crowned", "weight_decay=0.0", 1, wrong=20)
    store.parent(outline("elsewhere-data", seeds=(1,)))
    store.run("elsewhere-data", "weight_decay=0.0", 1, data_digest="e" * 64)
    store.client.create_registered_model("crown")
    source = f"{store.client.get_run(run).info.artifact_uri}/model"
    tags = {"gate": "better", "data_digest": DATA}
    version = store.client.create_model_version("crown", source, run_id=run, tags=tags)
    store.client.set_registered_model_alias("crown", "champion", version.version)
    assert report("crowned", "elsewhere-data", "--out", tmp_path, "--no-log").returncode == 0
    assert (tmp_path / "crowned/figures/champion-confusion.svg").exists()
    assert "90.00 % of 200 test images right" in (tmp_path / "crowned/report.md").read_text()
    assert not (tmp_path / "elsewhere-data/figures/champion-confusion.svg").exists()


def test_runs_come_page_by_page(
    store: Store, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from mlflow import tracking

    whole = tracking.MlflowClient.search_runs
    asked: list[str | None] = []

    def two_at_a_time(self, *words, page_token=None, **how):
        asked.append(page_token)
        return whole(self, *words, page_token=page_token, max_results=2, **how)

    monkeypatch.setattr(tracking.MlflowClient, "search_runs", two_at_a_time)
    assert report("decay", "--out", tmp_path, "--no-log").returncode == 0
    assert len(read_table(tmp_path / "decay/runs.csv")) == 6
    assert len([token for token in asked if token]) >= 3
