"""Two runs, two arms, a run against the champion: the report's own figures, every refusal in one line."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Dataset, DatasetInput
from PIL import Image

import imagenette
from imagenette.artifacts import Answers
from imagenette.data.scan import scan
from imagenette.errors import InputError
from imagenette.report.assemble import assemble
from imagenette.report.compare import compare
from imagenette.report.conclusions import p_value
from imagenette.report.pair import Pair, compare_runs
from imagenette.report.pair_images import images_of
from imagenette.report.reader import open_reader
from imagenette.results import SELECTED
from imagenette.stats import mcnemar, paired_shares, unpaired_shares
from imagenette.tracking.client import connect
from tests.data.small_sets import pack, small_set
from tests.report.conftest import command, make_decay
from tests.report.store import DATA, IMAGES, Store, outline

BASE, LESS = "decay:weight_decay=0.0005", "decay:weight_decay=0.01"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of its own, for it has a champion."""
    folder = tmp_path_factory.mktemp("pairs")
    uri = f"sqlite:///{folder}/mlflow.db"
    connect(uri).create_experiment("pairs", artifact_location=str(folder / "artifacts"))
    store = Store(uri, "pairs", folder / "made")
    make_decay(store)
    return store


@pytest.fixture(scope="module")
def pair(store: Store) -> Callable[..., Pair]:
    def run(a: str, b: str) -> Pair:
        return compare_runs(a, b, tracking_uri=store.uri, experiment=store.experiment)

    return run


@pytest.fixture(scope="module")
def two(store: Store) -> tuple[str, str]:
    """Runs of two learning rates and the same seed, which have 10 and 40 of the images wrong."""
    one = store.run("none", "one", 1, wrong=10, knobs={"workers": "2", "data": "/here/set"})
    return one, store.run("none", "two", 1, wrong=40, knobs={"lr": "2e-1", "weight_decay": "0"})


@pytest.fixture(scope="module")
def champion(store: Store) -> str:
    run_id = store.run("none", "best", 1, wrong=5)
    store.client.create_registered_model("imagenette")
    source = store.client.get_run(run_id).info.artifact_uri
    version = store.client.create_model_version("imagenette", source, run_id)
    store.client.set_registered_model_alias("imagenette", "champion", version.version)
    return run_id


def right(store: Store, run_id: str) -> np.ndarray:
    path = store.client.download_artifacts(run_id, "predictions.csv")
    with Path(path).open(encoding="utf-8") as file:
        return np.array([row["label"] == row["selected_predicted"] for row in csv.DictReader(file)])


# -- what is said --------------------------------------------------------------------------------------


def test_two_runs_are_mcnemars_exact_test_and_every_image_is_counted(store: Store, pair, two):
    ours, theirs = (right(store, run_id) for run_id in two)
    expected = paired_shares(mcnemar(ours, theirs), IMAGES)
    found = pair(two[0], two[1])
    assert (found.comparison.p, found.comparison.interval) == (expected.p, expected.interval)
    assert found.sentence == (
        f"run {two[0][:8]} is better than run {two[1][:8]} by 15.0 points "
        f"({100 * expected.interval.low:.1f} to {100 * expected.interval.high:.1f} for new images; single "
        f"runs; {p_value(expected.p)})."
    )
    assert any("what another seed would give is not in it" in note for note in found.notes)
    assert "One comparison: p is not corrected for any other." in found.notes
    images = found.images
    assert images is not None
    counted = [(ours & theirs), (ours & ~theirs), (~ours & theirs), (~ours & ~theirs)]
    assert [images.both, images.only_a, images.only_b, images.neither] == [
        int(each.sum()) for each in counted
    ]
    assert {image.name for image in images.differing} == {
        f"val/{i:03d}.png" for i in np.flatnonzero(ours != theirs)
    }
    assert all((i.a.predicted == i.label) != (i.b.predicted == i.label) for i in images.differing)


def test_knobs_that_differ_are_named_and_those_that_change_nothing_are_not(pair, two):
    assert pair(*two).knobs == {"lr": ("0.1", "0.2"), "weight_decay": (None, "0")}


def test_runs_that_differ_in_their_seed_alone_are_said_to(store: Store, pair, two):
    again = store.run("none", "one", 7, wrong=12, commit="beef" * 10)
    found = pair(two[0], again)
    assert (found.knobs, found.alike) == ({}, "They differ in their seed alone: 1 and 7.")
    assert any(note.startswith("Runs are of 2 commits of the code: ") for note in found.notes)


def test_arms_of_a_study_have_the_figures_of_its_report_before_holms_correction(store: Store, pair):
    tracked = open_reader(store.uri, store.experiment).study("decay")
    study = assemble("decay", tracked.plan, tracked.runs)
    expected = next(each for each in compare(study) if each.arm == "weight_decay=0.01")
    found = pair(LESS, BASE)
    assert (found.comparison.p, found.comparison.interval) == (expected.p, expected.interval)
    assert expected.p < expected.p_corrected
    assert found.sentence.startswith("weight_decay=0.01 is worse than weight_decay=0.0005 by ")
    assert found.sentence.endswith(f"for new seeds and images; {p_value(expected.p)}).")
    assert found.alike == "No knob differs that all runs of each share."  # these stores name it in tags
    assert found.images.total == IMAGES
    assert {image.a.runs for image in found.images.differing} == {2}


@pytest.mark.parametrize("value", ["5e-4", "0.00050", ".0005"])
def test_an_arm_s_number_may_be_written_in_any_way(pair, value):
    assert pair(LESS, f"decay:weight_decay={value}").comparison == pair(LESS, BASE).comparison


def test_what_is_compared_the_other_way_round_has_the_other_sign(pair):
    there, back = pair(LESS, BASE).comparison, pair(BASE, LESS).comparison
    assert (there.value, there.p, there.verdict) == (-back.value, back.p, "worse")
    assert back.verdict == "better"


def test_a_run_against_an_arm_is_taken_to_scatter_as_the_arm_does(pair, two):
    found = pair(two[1], BASE)
    assert found.comparison.runs == (1, 2)
    assert found.comparison.seeds
    assert f"With a single run, which is taken to scatter as others do: run {two[1][:8]}." in found.notes


def test_a_run_against_the_champion_by_each_of_its_names(pair, two, champion):
    names = ("champion", "imagenette@champion", "models:/imagenette@champion", "imagenette/1")
    found = [pair(two[1][:6], name) for name in names]
    assert {each.comparison.p for each in found} == {found[0].comparison.p}
    assert found[0].sentence.startswith(f"run {two[1][:8]} is worse than imagenette@champion by 17.5 points")
    assert champion in found[0].b.about


def test_a_run_without_predictions_is_tested_unpaired_and_it_is_said(store: Store, pair, two):
    bare = store.run("none", "bare", 1, wrong=40, predictions=False)
    data = Dataset("set", "0" * 8, "local", "{}", profile=json.dumps({"test_images": IMAGES}))
    store.client.log_inputs(bare, [DatasetInput(data)])
    found = pair(two[0], bare)
    assert found.comparison.p == unpaired_shares(190, IMAGES, 160, IMAGES).p
    assert found.images is None
    assert any(bare in note and "has no stored predictions" in note for note in found.notes)
    assert any("as if each arm had its own" in note for note in found.notes)


def test_a_run_of_unknown_images_is_not_tested(store: Store, pair, two):
    bare = store.run("none", "unknown", 1, wrong=40, predictions=False)
    found = pair(bare, two[0])
    assert found.comparison.p is None
    assert found.sentence == (
        f"run {bare[:8]} is 15.0 points below run {two[0][:8]}, which could not be tested."
    )
    assert found.to_json()["verdict"] is None


def test_images_most_apart_come_first_and_of_those_the_surest():
    labels = ("a", "a", "a", "b")

    def said(*predicted: str, shares: tuple[float, ...] = (0.5,) * 4) -> Answers:
        return Answers(("1", "2", "3", "4"), labels, {SELECTED: predicted}, {SELECTED: shares})

    ours = [said("a", "a", "a", "b", shares=(0.5, 0.9, 0.9, 0.5)), said("a", "a", "b", "b")]
    theirs = [said("b", "b", "b", "b"), said("b", "b", "b", "b", shares=(0.5, 0.6, 0.5, 0.5))]
    found = images_of(ours, theirs, SELECTED, {"a": "apple"})
    assert [image.name for image in found.differing] == ["2", "1", "3"]
    assert (found.both, found.only_a, found.only_b, found.neither) == (1, 2, 0, 1)
    third = found.differing[2]
    assert (third.a.right, third.a.words({"a": "apple"}), third.b.words({})) == (
        0.5,
        "apple 1 of 2",
        "b 2 of 2",
    )


# -- what is refused -----------------------------------------------------------------------------------


def refused(pair, a: str, b: str) -> str:
    with pytest.raises(InputError) as caught:
        pair(a, b)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_runs_on_other_data_are_refused_with_the_data_of_each(store: Store, pair, two):
    other = store.run("none", "elsewhere", 1, data_digest="f" * 64)
    assert refused(pair, two[0], other) == (
        f"run {two[0][:8]} is on data {DATA[:8]}, run {other[:8]} on ffffffff: their accuracies are of other "
        "images"
    )


@pytest.mark.parametrize("status", ["running", "failed"])
def test_what_has_not_finished_is_refused_with_how_it_stands(store: Store, pair, two, status: str):
    going = store.run("none", f"is {status}", 1, status=status)
    assert refused(pair, going, two[0]) == f"run {going} (is {status} seed=1) cannot be compared: {status}"
    store.parent(outline("begun", arms={"a=1": {}, "a=2": {}}, baseline=None), status="running")
    store.run("begun", "a=1", 1, status=status)
    said = refused(pair, "begun:a=1", two[0])
    assert said.startswith("arm a=1 of study begun has no finished run (seed 1: ")


def test_a_deleted_run_is_refused_by_its_beginning_too(store: Store, pair, two):
    gone = store.run("none", "gone", 1)
    store.client.delete_run(gone)
    for text in (gone, gone[:12]):
        assert refused(pair, two[0], text) == f"run {gone} (gone seed=1) cannot be compared: is deleted"


def test_what_would_be_compared_with_itself_is_refused(store: Store, pair, two, champion):
    assert refused(pair, champion, "champion") == f"{champion} and champion are both run {champion}"
    (run,) = store.client.search_runs([store.id], "attributes.run_name = 'weight_decay=0.01 seed=1'")
    assert "it would be compared with itself" in refused(pair, run.info.run_id, LESS)
    assert "it would be compared with itself" in refused(pair, LESS, LESS)
    taken = store.run("none", "taken over", 1, role="reused", reused_run=two[0])
    assert refused(pair, taken, two[0]) == f"{taken} and {two[0]} are both run {two[0]}"
    assert pair(taken, two[1]).images is not None


def test_a_name_or_a_beginning_that_several_have_is_refused_with_all_of_them(store: Store, pair, two):
    twins = [store.run("none", "twin", 1) for _ in range(2)]
    said = refused(pair, "twin seed=1", two[0])
    assert said.startswith("twin seed=1 may be 2 runs: ")
    assert all(run_id in said for run_id in twins)
    with sqlite3.connect(store.uri.removeprefix("sqlite:///")) as database:  # else ids are random
        values = list(database.execute("SELECT * FROM runs WHERE run_uuid = ?", (twins[0],)).fetchone())
        columns = [name for _, name, *_ in database.execute("PRAGMA table_info(runs)")]
        like = twins[0][:16] + "f" * 16
        values[columns.index("run_uuid")] = like
        database.execute(f"INSERT INTO runs VALUES ({', '.join('?' * len(values))})", values)
    said = refused(pair, twins[0][:8], two[0])
    assert twins[0] in said
    assert like in said
    assert pair(twins[0][:17], two[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("weight_decay=0.1 seed=1", ["did you mean weight_decay=0.0", "champion, NAME@ALIAS, NAME/VERSION"]),
        ("chmapion", ["did you mean champion?"]),
        ("decay", ["decay is a study: name an arm, decay:ARM; there are weight_decay=0.0, "]),
        (
            "decay:weight_decay=0.1",
            ["no arm 'weight_decay=0.1'", "did you mean weight_decay=0.01?", "0.0005"],
        ),
        ("deccay:a", ["study deccay", "did you mean decay?"]),
        ("imagenette@chmapion", ["not registered; imagenette has @champion, /1"]),
        ("other@champion", ["model other@champion is not registered"]),
        ("abcdef", ["no such run"]),
        ("a'b\"c", ["cannot be searched for"]),
    ],
)
def test_what_is_not_there_is_told_with_what_is(pair, two, champion, text: str, words: list[str]):
    said = refused(pair, two[0], text)
    assert all(each in said for each in words), said


def test_a_studys_parent_run_is_no_training(store: Store, pair, two):
    (parent,) = store.client.search_runs([store.id], "tags.study = 'decay' AND tags.role = 'study'")
    assert "decay is a study: name an arm" in refused(pair, parent.info.run_id, two[0])


# -- in a terminal, as JSON, as a picture --------------------------------------------------------------


def test_a_terminal_of_80_columns_shows_all_of_it(store: Store, two):
    done = command(store, "compare", *two, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for words in ("is better than", "lr", "selected epoch", "95.00, n=1", "+15.00 points", "only A", ".png"):
        assert words in done.stdout, words
    assert done.stderr == ""


PETS = ("$^$", "dog")
"""Classes; the first is no mathematics."""


def strict(text: str) -> Any:
    def no(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=no)


def test_json_holds_everything_strictly(store: Store, two):
    odd = store.run("none", "odd", 3, wrong=30, claims={"best/test_accuracy": float("nan")})
    done = command(store, "compare", odd, two[0], "--json")
    assert done.returncode == 0, done.stderr
    found = strict(done.stdout)
    assert found["verdict"] == "worse"
    assert found["a"]["accuracies"]["best/test_accuracy"]["mean"] is None
    assert found["difference"] == pytest.approx(-0.1)
    assert found["images"]["both_right"] + found["images"]["only_a_right"] == 170
    assert len(found["images"]["differing"]) == sum(found["images"][f"only_{side}_right"] for side in "ab")
    assert found["images"]["differing"][0].keys() == {"image", "class", "label", "a", "b"}


@pytest.fixture(scope="module")
def pictures(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder of pictures, and two runs on it that differ on three of its four test images."""
    folder = pack(small_set(PETS), tmp_path_factory.mktemp("pictures") / "pets")
    found = scan(folder)
    names = [entry.name for entry in found.test]
    runs = []
    for said in ((PETS[0], PETS[0], "dog", PETS[0]), ("dog", "dog", "dog", "dog")):
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(["image", "label", "predicted", "share", "selected_predicted", "selected_share"])
        rows.writerows([n, n.split("/")[1], s, "0.75", s, "0.75"] for n, s in zip(names, said, strict=True))
        share = sum(n.split("/")[1] == s for n, s in zip(names, said, strict=True)) / len(names)
        claims = {f"{which}/test_accuracy": share for which in ("selected", "final", "best")}
        knobs = {"data": str(folder)}
        told = {"predictions": text.getvalue(), "claims": claims, "knobs": knobs, "data_digest": found.digest}
        runs.append(store.run("none", f"pets {said[0]}", 1, **told))
    return folder, runs


@pytest.mark.parametrize("moved", [False, True])
def test_a_contact_sheet_draws_the_images_from_where_the_runs_had_them_or_from_elsewhere(
    store: Store, pictures, tmp_path: Path, moved: bool
):
    runs = pictures[1]
    where = ["--data", pack(small_set(PETS), tmp_path / "moved.zip")] if moved else []
    done = command(
        store, "compare", *runs, "--contact-sheet", tmp_path / "s.png", *where, IMAGENETTE_HOME=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(f"imagenette: {tmp_path / 's.png'}\n")
    with Image.open(tmp_path / "s.png") as image:
        assert image.format == "PNG"
        assert image.width > 400
        colours = {colour for _, colour in image.convert("RGB").getcolors(image.width * image.height)}
    assert (0x00, 0x72, 0xB2) in colours  # right
    assert (0xD5, 0x5E, 0x00) in colours  # wrong


def test_where_the_pictures_are_not_here_one_line_says_so_and_the_rest_stands(
    store: Store, two, pictures, tmp_path: Path
):
    sheet = tmp_path / "s.png"
    for runs, why in ((two, "data=/here/set: there is no /here/set"), (pictures[1], "is other data")):
        where = ["--data", pack(small_set(size=(9, 9)), tmp_path / "other")] if runs is not two else []
        done = command(
            store, "compare", *runs, "--json", "--contact-sheet", sheet, *where, IMAGENETTE_HOME=str(tmp_path)
        )
        assert done.returncode == 0
        assert strict(done.stdout)["images"]
        assert done.stderr.startswith("imagenette: no contact sheet: the pictures of data ")
        assert why in done.stderr
        assert done.stderr.count("\n") == 1
    assert not sheet.exists()


@pytest.mark.parametrize(
    ("file", "why"), [("s.jpg", "must end in .png"), ("no/such/folder/s.png", "there is no such folder")]
)
def test_a_sheet_that_cannot_be_written_is_refused_first(
    store: Store, two, file: str, why: str, tmp_path: Path
):
    done = command(store, "compare", *two, "--contact-sheet", tmp_path / file)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr


def test_passwords_in_addresses_are_hidden(store: Store, two):
    done = command(store, "compare", "a", "b", MLFLOW_TRACKING_URI="http://user:planted@127.0.0.1:9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "***" in done.stderr
    arm = "from postgresql://me:planted@host/db"
    leaky = store.run("none", arm, 1, wrong=33, knobs={"lr": "s3://k:planted@host?password=planted"})
    texts = [command(store, "compare", leaky, two[0], *form).stdout for form in ([], ["--json"])]
    texts.append(command(store, "compare", leaky, f"nothing {arm}").stderr)
    assert all("***" in text for text in texts[:2])
    strict(texts[1])
    assert not any("planted" in text for text in [done.stderr, *texts])


COSTS_NOTHING = """
import sys
import imagenette
assert not {"numpy", "mlflow", "pydantic"} & sys.modules.keys()
from imagenette import compare
assert compare.__module__ == "imagenette.report.pair"
assert "torch" not in sys.modules
imagenette.nothing
"""


def test_from_python_without_torch_and_without_a_cost_to_the_import(store: Store, two):
    done = subprocess.run([sys.executable, "-c", COSTS_NOTHING], capture_output=True, encoding="utf-8")
    assert done.stderr.endswith("AttributeError: module 'imagenette' has no attribute 'nothing'\n")
    found = imagenette.compare(*two, tracking_uri=store.uri, experiment=store.experiment)
    assert found.comparison.verdict == "better"
