"""Three accuracies, kept apart."""

from imagenette.config import Config
from imagenette.records import Epoch
from imagenette.results import describe, selected_epoch, summary_metrics


def epoch(index, holdout, test, loss=1.0):
    return Epoch(
        index=index,
        timestamp=index,
        train_loss=1.0,
        train_accuracy=0.5,
        holdout_loss=loss,
        holdout_accuracy=holdout,
        test_loss=loss,
        test_accuracy=test,
        lr=0.1,
        speed_images_per_second=1.0,
        speed_epoch_seconds=1.0,
    )


HISTORY = [epoch(1, 0.5, 0.8), epoch(2, 0.9, 0.6), epoch(3, 0.7, 0.7)]


def test_selection_reads_the_holdout_and_never_the_test_set():
    assert selected_epoch(HISTORY, holdout=True) == 2
    metrics = summary_metrics(HISTORY, holdout=True)
    assert metrics["selected/test_accuracy"] == 0.6
    assert metrics["selected/epoch"] == 2
    assert (metrics["best/test_accuracy"], metrics["best/epoch"]) == (0.8, 1)
    assert (metrics["final/test_accuracy"], metrics["final/holdout_accuracy"]) == (0.7, 0.7)


def test_without_a_holdout_the_test_set_decides_and_the_description_says_so():
    bare = [epoch(i, None, test) for i, test in enumerate([0.8, 0.6, 0.7], start=1)]
    assert selected_epoch(bare, holdout=False) == 1
    metrics = summary_metrics(bare, holdout=False)
    assert "final/holdout_accuracy" not in metrics
    said = describe(Config(holdout=0, epochs=3), metrics, test_images=3925, seconds=60, reproduce="x")
    assert "on the test set itself" in said
    empty = describe(Config(epochs=3), metrics, test_images=9, seconds=60, reproduce="x")
    assert "on the test set itself" in empty, "where the share of a small set is no image"
    metrics = summary_metrics(HISTORY, holdout=True)
    assert "on the holdout" in describe(Config(epochs=3), metrics, test_images=9, seconds=60, reproduce="x")


def test_ties_go_to_the_lower_loss_then_to_the_earlier_epoch():
    assert selected_epoch([epoch(1, 0.9, 0, 0.5), epoch(2, 0.9, 0, 0.4)], holdout=True) == 2
    assert selected_epoch([epoch(1, 0.9, 0), epoch(2, 0.9, 0)], holdout=True) == 1


def test_epochs_without_an_evaluation_are_passed_over():
    skipped = [epoch(1, None, None), epoch(2, 0.4, 0.4)]
    assert selected_epoch(skipped[:1], holdout=True) is None
    assert selected_epoch(skipped, holdout=True) == 2
    assert summary_metrics(skipped, holdout=True)["best/epoch"] == 2


def test_metric_names_are_the_documented_ones():
    assert set(HISTORY[0].metrics()) == {
        "train/loss",
        "train/accuracy",
        "holdout/loss",
        "holdout/accuracy",
        "test/loss",
        "test/accuracy",
        "lr",
        "speed/images_per_second",
        "speed/epoch_seconds",
    }
