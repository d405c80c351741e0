"""Two processes compute what one does."""

import pytest
import torch

from tests.integration.conftest import metric_history, weights

ONE_EPOCH = {"epochs": "1", "sync_bn": "true", "limit": "", "size": "32", "lr": "0.01"}


@pytest.mark.parametrize("drop_last", ["true", "false"])
def test_two_processes_equal_one(start, noise_set, tmp_path, drop_last):
    """float32, synchronized norm, the same global batch; with drop_last=false the last batch is odd."""
    knobs = ONE_EPOCH | {"data": str(noise_set), "drop_last": drop_last, "limit": "307"}
    one = start(tmp_path / "one", nproc="1", **knobs)
    assert one.wait() == 74, one.said
    two = start(tmp_path / "two", nproc="2", **knobs)
    assert two.wait() == 74, two.said
    alone, together = weights(tmp_path / "one"), weights(tmp_path / "two")
    furthest = max(float((alone[name].float() - together[name].float()).abs().max()) for name in alone)
    assert furthest <= 1e-5
    (_, metrics_one), (_, metrics_two) = (
        metric_history(tmp_path / "one")[0],
        metric_history(tmp_path / "two")[0],
    )
    assert metrics_one == pytest.approx(metrics_two, abs=1e-4)


def test_without_synchronized_norm_they_do_not(start, noise_set, tmp_path):
    """Or the law above would hold for nothing."""
    knobs = ONE_EPOCH | {"data": str(noise_set), "sync_bn": "false"}
    outputs = {nproc: tmp_path / nproc for nproc in ("1", "2")}
    for nproc, output in outputs.items():
        training = start(output, nproc=nproc, **knobs)
        assert training.wait() == 74, training.said
    apart, alone = (weights(output)["bn1.running_var"] for output in outputs.values())
    assert not torch.allclose(apart, alone, rtol=1e-3)
