"""Figures of studies of every shape: what is drawn, what is left out, and which colour an arm has."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imagenette.report.figures import draw_all
from imagenette.report.reader import Champion
from imagenette.report.study import Arm, Study
from imagenette.report.style import Drawn, looks
from tests.report.simulated import run

EPOCHS = np.arange(1.0, 21.0)
CURVES = {
    key: (EPOCHS, np.linspace(0.1, 0.9, 20) if "accuracy" in key else np.linspace(2, 0.1, 20))
    for key in ("train/accuracy", "test/accuracy", "train/loss", "test/loss")
}


def arm(name: str, seeds: int = 2, **values: object) -> Arm:
    rng = np.random.default_rng(len(name))
    runs = [run(rng.random(300) < 0.9, arm=name, seed=s, curves=CURVES, seconds=100.0) for s in range(seeds)]
    return Arm(name=name, values=values, runs=tuple(runs))  # type: ignore[arg-type]


def study(arms: list[Arm]) -> Study:
    return Study(name="s", title="S", arms=tuple(arms), baseline=arms[0] if arms else None)


def drawn(of: Study, champion: Champion | None = None) -> dict[str, Drawn]:
    return {each.name: each for each in draw_all(of, champion)}


def test_a_grid_of_two_knobs_has_a_heat_map_with_what_is_missing_shown():
    arms = [arm(f"lr={lr} depth={d}", lr=lr, depth=d) for lr in (0.1, 0.2) for d in (18, 34, 50)]
    arms[4] = replace(arms[4], runs=())
    found = drawn(study(arms))
    texts = [text.get_text() for text in found["grid"].figure.axes[0].texts]
    assert texts.count("missing") == 1
    assert len(texts) == 6
    assert "grid" not in drawn(study(arms[:3]))  # one knob varies
    assert "grid" not in drawn(study(arms[:5]))  # not a whole grid


def test_of_many_arms_seven_are_drawn_as_curves_the_baseline_among_them():
    arms = [arm(f"lr={lr}", seeds=1, lr=lr) for lr in range(30)]
    found = drawn(replace(study(arms), baseline=arms[13]))
    (_, series, _), *_ = found["test-curves"].curves
    labels = [each.label for each in series]
    assert len(labels) == 7
    assert "13" in labels
    assert "7 of 30 arms are drawn." in found["test-curves"].caption
    assert "30 of 30" not in found["accuracy"].caption


@pytest.mark.parametrize("count", [2, 7, 25])
def test_an_arm_has_the_same_colour_in_every_figure(count: int):
    arms = [arm(f"lr={lr}", lr=lr) for lr in range(count)]
    found = drawn(study(arms))
    look = looks([each.name for each in arms])
    assert len({each.colour for each in look.values()}) == count
    for name in ("accuracy", "optimism", "cost"):
        used = {line.get_color() for line in found[name].figure.axes[0].lines}
        assert {each.colour for each in look.values()} <= used, name
    (_, series, _), *_ = found["test-curves"].curves
    assert all(each.colour == look[f"lr={each.label}"].colour for each in series)


def test_nothing_to_show_is_nothing_drawn():
    assert drawn(study([])) == {}
    assert drawn(study([Arm(name="a"), Arm(name="b")])) == {}
    bare = replace(run(np.ones(9, bool)), curves={}, seconds=None)
    assert set(drawn(study([Arm(name="a", runs=(bare,))]))) == {"accuracy", "optimism"}


def test_epochs_selected_on_the_test_set_have_no_optimism_to_show():
    arms = [arm("a"), arm("b")]
    on_test = [replace(a, runs=tuple(replace(r, tags={"selection": "test"}) for r in a.runs)) for a in arms]
    assert "optimism" not in drawn(study(on_test))
    assert "optimism" in drawn(study(arms))


def test_a_reference_of_other_conditions_is_not_drawn_beside_our_runs():
    arms = [replace(arm("a"), reference={"best/test_accuracy": 0.5}), arm("b")]
    same = drawn(study(arms))["accuracy"]
    other = drawn(replace(study(arms), other_conditions="trained with epochs=5"))["accuracy"]
    assert any("reference 50.00 %" in tip for tip in same.tips.values())
    assert not any("reference" in tip for tip in other.tips.values())


def test_the_champions_mistakes_are_counted_class_by_class():
    counts = np.array([[9, 1], [3, 7]])
    champion = Champion(
        name="imagenette",
        version="3",
        run_id="abc",
        study="depth",
        data_digest="d",
        classes=("cat", "dog"),
        counts=counts,
    )
    found = drawn(study([]), champion)["champion-confusion"]
    assert "80.00 % of 20 test images right" in found.caption
    assert "dog called cat: 3 images" in found.tips.values()


def test_a_curve_shows_the_epochs_that_all_its_runs_have():
    long, short = run(np.ones(9, bool), curves=CURVES), run(np.ones(9, bool), seed=1)
    short = replace(short, curves={key: (x[:5], y[:5]) for key, (x, y) in CURVES.items()})
    (_, (series,), _), *_ = drawn(study([Arm(name="a", runs=(long, short))]))["test-curves"].curves
    assert series.x == [1, 2, 3, 4, 5]


def test_every_form_of_a_figure_is_written_and_the_page_s_own_inks_replace_ours(tmp_path: Path):
    (first, *_) = draw_all(study([arm("a<b>&", seeds=2), arm("b")]))
    svg = first.save(tmp_path).svg
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert "a&lt;b&gt;&amp;" in svg
    assert "var(--ink)" in svg
    assert not re.search(r"https?://(?!www\.w3\.org)", svg)
    ids = set(re.findall(r'\sid="([^"]+)"', svg))
    assert all(each.startswith("accuracy-") for each in ids)
    assert set(re.findall(r'(?:url\(|xlink:href=")#([^")]+)', svg)) <= ids
    assert set(re.findall(r'data-tip="([^"]+)"', svg)) == set(first.tips)


def test_the_same_study_is_drawn_to_the_same_bytes(tmp_path: Path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for each in draw_all(study([arm("a"), arm("b")])):
            each.save(tmp_path / name)
    for path in (tmp_path / "one").glob("*.svg"):
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_names_are_drawn_as_they_are(tmp_path: Path):
    arms = [arm("a$^$"), arm("$x_{$ y"), arm("_hidden"), arm("p$a$q")]
    for each in draw_all(study(arms)):
        svg = each.save(tmp_path).svg
        if each.name in ("accuracy", "test-curves"):
            assert all(name in svg for name in ("a$^$", "$x_{$ y", "_hidden", "p$a$q")), each.name


def test_a_grid_too_large_to_read_has_no_heat_map():
    arms = [arm(f"lr={lr} depth={d}", seeds=1, lr=lr, depth=d) for lr in range(60) for d in (18, 34)]
    assert "grid" in drawn(study(arms[:4]))
    assert "grid" not in drawn(study(arms))
