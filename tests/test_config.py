"""The knobs: layering, bounds, words, round trip."""

import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagenette.config import (
    DATA,
    GROUPS,
    KNOBS,
    NEUTRAL,
    OPERATIONAL,
    OPTIMIZERS,
    RECIPES,
    Config,
    allowed,
    canonical,
    from_params,
    resolve,
)
from imagenette.config.file import read_knobs
from imagenette.errors import InputError


def test_defaults_are_the_fast_recipe():
    assert resolve({}) == resolve({"recipe": "fast"})
    assert resolve({}) == Config(start_size=64), "which follows from the size"


def test_explicit_knobs_win_over_the_recipe_and_the_recipe_over_defaults():
    paper = resolve({"recipe": "paper"})
    assert (paper.epochs, paper.batch_size, paper.size, paper.lr) == (350, 32, 256, 0.1)
    assert resolve({"recipe": "paper", "epochs": "3"}).epochs == 3
    assert resolve({"recipe": "paper", "size": "128"}).size == 128, "the default, yet it was asked for"


def test_paper_code_is_paper_at_a_tenth_of_the_rate():
    paper, code = resolve({"recipe": "paper"}), resolve({"recipe": "paper-code"})
    assert code.lr == 0.01
    assert code.model_copy(update={"lr": 0.1, "recipe": "paper"}) == paper


@pytest.mark.parametrize(("batch_size", "group"), [(8, 2), (32, 8), (128, 32), (2, 1)])
def test_paper_normalizes_a_quarter_of_the_batch(batch_size, group):
    assert resolve({"recipe": "paper", "batch_size": str(batch_size)}).bn_group == group


def test_digits_are_never_mirrored_unless_asked():
    assert resolve({"data": "digits"}).flip is False
    assert resolve({"data": "digits", "recipe": "paper"}).size == 32
    assert resolve({"data": "digits", "flip": "true"}).flip is True


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("depth", "19"),
        ("depth", "fifty"),
        ("batch_size", "0"),
        ("batch_size", "2.5"),
        ("lr", "abc"),
        ("lr", "nan"),
        ("lr", "inf"),
        ("lr", "0"),
        ("weight_decay", "-1"),
        ("epochs", "0"),
        ("size", "1"),
        ("size", "nan"),
        ("holdout", "0.9"),
        ("momentum", "1"),
        ("nproc", "0"),
        ("nproc", "many"),
        ("flip", "perhaps"),
        ("recipe", "slow"),
        ("data", ""),
        ("optimizer", ""),
    ],
)
def test_a_bad_value_is_one_line_with_the_value_and_what_is_allowed(knob, value):
    with pytest.raises(InputError) as error:
        resolve({knob: value})
    message = str(error.value)
    assert message == f"{knob}={value}: {knob} must be {allowed(knob)}"
    assert "\n" not in message


def test_an_unknown_knob_gets_a_suggestion():
    with pytest.raises(InputError, match=r"^unknown knob wieght_decay=1: did you mean weight_decay\?$"):
        resolve({"wieght_decay": "1"})
    with pytest.raises(InputError, match="the knobs are depth, architecture"):
        resolve({"zzz": "1"})


def test_every_knob_says_what_it_means_and_what_it_takes():
    for name in KNOBS:
        assert Config.model_fields[name].description, name
        assert allowed(name), name
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(KNOBS)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [("muon", (64, 0.05, 0.01)), ("sgd", (32, 0.1, 5e-4)), ("adamw", (32, 0.002, 0.05))],
)
def test_an_optimizer_brings_its_batch_rate_and_decay(optimizer, expected):
    config = resolve({"optimizer": optimizer})
    assert (config.batch_size, config.lr, config.weight_decay) == expected
    assert resolve({"optimizer": optimizer, "lr": 0.3}).lr == 0.3


def test_timms_networks_get_adamw_unless_told_otherwise():
    config = resolve({"architecture": "convnext_nano"})
    assert (config.optimizer, config.lr, config.weight_decay) == ("adamw", 0.002, 0.05)
    assert resolve({"architecture": "convnext_nano", "optimizer": "sgd"}).lr == 0.1


def test_the_fast_recipe_starts_at_half_the_resolution_where_that_is_64_or_more():
    assert [resolve({"size": size}).start_size for size in (64, 96, 128, 200, 224)] == [0, 0, 64, 96, 112]
    assert resolve({"size": 224, "start_size": 0}).start_size == 0
    assert resolve({"size": 224, "recipe": "record"}).start_size == 0


def test_recipes_name_only_knobs():
    for layer in [*RECIPES.values(), *DATA.values()]:
        assert set(layer) <= set(KNOBS)


def test_canonical_text():
    params = resolve({"weight_decay": "5e-4", "flip": "1", "depth": "50"}).params()
    assert (params["weight_decay"], params["flip"], params["depth"]) == ("0.0005", "true", "50")
    assert tuple(params) == KNOBS


configs = st.builds(
    dict,
    depth=st.sampled_from([18, 34, 50, 101, 152]),
    lr=st.floats(1e-8, 100, allow_nan=False),
    weight_decay=st.floats(0, 10, allow_nan=False),
    seed=st.integers(0, 2**40),
    flip=st.booleans(),
    recipe=st.sampled_from(list(RECIPES)),
    nproc=st.one_of(st.just("auto"), st.integers(1, 64)),
    holdout=st.floats(0, 0.5, allow_nan=False),
)


@given(configs)
def test_text_and_back_is_the_same_config(values):
    config = resolve(values)
    assert resolve(config.params()) == config
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert resolve({name: canonical(value) for name, value in values.items()}) == config


@given(configs, st.sampled_from(["cpu", "cuda"]), st.integers(1, 8), st.integers(0, 8))
def test_digest_ignores_how_it_runs_and_nothing_else(values, device, nproc, workers):
    config = resolve(values)
    how = {"device": device, "nproc": nproc, "workers": workers, "bad_pictures": "skip"}
    assert config.model_copy(update=how).digest() == config.digest()
    assert config.model_copy(update={"seed": config.seed + 1}).digest() != config.digest()
    assert config.model_copy(update={"lr": config.lr / 2}).digest() != config.digest()


def test_a_knob_that_is_added_leaves_every_earlier_digest_as_it_was():
    class Tomorrow(Config):
        sharpness: float = 0.0
        """A knob of tomorrow's, whose default changes nothing."""

    before = resolve({"data": "digits", "lr": 0.3})
    after = Tomorrow.model_validate(before.model_dump())
    assert after.params().keys() - before.params().keys() == {"sharpness"}
    assert after.digest() == before.digest()
    assert after.model_copy(update={"sharpness": 0.5}).digest() != before.digest()


def test_a_digest_is_of_values_that_were_frozen_and_not_of_defaults_that_may_move():
    assert NEUTRAL.keys() == set(KNOBS) - OPERATIONAL
    assert resolve(NEUTRAL).digest() == Config().digest() == "44136fa355b3678a"
    digest = resolve({"data": "digits", "recipe": "paper", "batch_size": 8, "seed": 3}).digest()
    assert digest == "49f39f7b02e4c019", "finished runs would be trained again"


def test_a_tracked_runs_params_give_its_config_however_they_are_spelt():
    config = resolve({"data": "digits", "weight_decay": "5e-4"})
    params = config.params() | {"weight_decay": "5e-4", "flip": "False"}
    assert from_params(params) == config
    del params["erase"]  # of a run that is older than this knob
    assert from_params(params) == config
    assert from_params(params | {"depth": "19"}) is None
    assert from_params(params | {"of_tomorrow": "1"}) is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_table_has_a_builder_values_and_a_place_among_the_choices(name):
    config = resolve({"optimizer": name})
    module, _, function = OPTIMIZERS[name].builder.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert (config.lr, config.weight_decay, config.batch_size) == (
        OPTIMIZERS[name].lr,
        OPTIMIZERS[name].weight_decay,
        OPTIMIZERS[name].batch_size,
    )
    assert name in allowed("optimizer")
    assert f"{config.lr} for {name}" in str(RECIPES["fast"]["lr"])


def test_the_fast_recipe_crops_less_in_short_runs():
    scales = [resolve({"epochs": epochs}).crop_scale for epochs in (1, 5, 10, 16, 350)]
    assert scales == [0.86, 0.7, 0.5, 0.35, 0.35]
    assert resolve({"epochs": 5, "crop_scale": 0.2}).crop_scale == 0.2
    assert resolve({"epochs": 5, "recipe": "paper"}).crop_scale == 0.08


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start_size": 16}, "start_size=16: start_size must be 0 or from 32 to size=128"),
        ({"start_size": 160}, "start_size=160: start_size must be 0 or from 32 to size=128"),
        (
            {"activation": "mish"},
            "activation=mish: architecture=resnet has relu; choose architecture=xresnet",
        ),
        ({"deterministic": True, "cudnn_benchmark": True}, "cudnn_benchmark=true: deterministic=true wants"),
        ({"architecture": "resnet26d", "bn_group": 8}, "bn_group=8: only architecture=resnet and xresnet"),
        (
            {"architecture": "resnet26d", "sync_bn": True},
            "sync_bn=true: only architecture=resnet and xresnet",
        ),
    ],
)
def test_knobs_that_do_not_go_together_are_one_line(given, message):
    with pytest.raises(InputError) as error:
        resolve(given)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"depth": 34}, "resnet34"),
        ({"depth": 34, "architecture": "xresnet", "activation": "silu"}, "xresnet34-silu"),
        ({"architecture": "resnet26d"}, "timm/resnet26d"),
    ],
)
def test_a_network_has_one_name(given, name):
    assert resolve(given).network == name


def test_a_file_gives_knobs_and_an_earlier_run_s_gives_all_of_them(tmp_path):
    config = resolve({"recipe": "paper", "data": "digits", "weight_decay": 0})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert resolve(read_knobs(tmp_path / "config.json")) == config
    (tmp_path / "run.toml").write_text('recipe = "paper"\ndata = "digits"\nweight-decay = 0\n')
    assert resolve(read_knobs(tmp_path / "run.toml")) == config
    assert resolve(read_knobs(tmp_path / "run.toml") | {"weight_decay": "0.1"}).weight_decay == 0.1


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("gone.toml", None, "cannot be read: No such file or directory"),
        ("run.toml", "depth 50", "cannot be read: .+"),
        ("run.json", "{", "cannot be read: .+"),
        ("run.json", "[50]", "must be a table of knobs, as `depth = 50`"),
        ("run.toml", "[base]\ndepth = 50", r"base=\{'depth': 50\}: must be one value"),
        ("run.toml", "depth = [18, 50]", r"depth=\[18, 50\]: must be one value"),
    ],
)
def test_a_file_that_gives_no_knobs_is_one_line(tmp_path, name, text, line):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"^config=.*{name}: {line}$"):
        read_knobs(tmp_path / name)
