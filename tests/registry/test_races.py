"""However promoters meet, and wherever one is killed: the best model is champion, and `previous` works."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from imagenette.registry import load, promote
from tests.registry.finished_runs import Shop
from tests.registry.racing import promote_each_round

PROMOTERS = 4


def race(shop: Shop, rounds: int, *, seed: int) -> list[str]:
    """What went wrong in so many rounds of four processes promoting four different runs at once."""
    rng = random.Random(seed)
    values = [0.60 + 0.02 * i for i in range(12)]
    pool = {shop.run(value, range(14 - i)): value for i, value in enumerate(values)}
    chosen = [rng.sample(list(pool), PROMOTERS) for _ in range(rounds)]
    names = [f"race{seed}-{i}" for i in range(rounds)]
    client = MlflowClient(shop.uri)
    former: dict[str, float] = {}
    for name in names[::2]:  # every other round has a champion already
        run = rng.choice(list(pool))
        promote(tracking_uri=shop.uri, experiment="registry", name=name, run_id=run)
        former[name] = pool[run]
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        barrier, failures = manager.Barrier(PROMOTERS), manager.list()
        processes = [
            context.Process(
                target=promote_each_round,
                args=(
                    shop.uri,
                    [(n, c[i]) for n, c in zip(names, chosen, strict=True)],
                    i,
                    barrier,
                    failures,
                ),
            )
            for i in range(PROMOTERS)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(1500)
        wrong = [*failures, *(f"promoter ended with {p.exitcode}" for p in processes if p.exitcode)]
    for name, runs in zip(names, chosen, strict=True):
        best = max([pool[run] for run in runs] + [former.get(name, 0)])
        aliases = client.get_registered_model(name).aliases
        champion = client.get_model_version(name, aliases["champion"])
        if float(champion.tags["selection_value"]) != best:
            wrong.append(f"{name}: champion has {champion.tags['selection_value']}, the best {best}")
        if "previous" in aliases:
            before = client.get_model_version(name, aliases["previous"])
            load(f"{name}@previous", tracking_uri=shop.uri)
            if not float(before.tags["selection_value"]) < best:
                wrong.append(f"{name}: previous has {before.tags['selection_value']}")
    return wrong


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_four_promoters_at_once_end_on_the_best_200_times(shop: Shop) -> None:
    assert race(shop, 200, seed=2) == []


@pytest.mark.slow
def test_a_promoter_killed_at_any_step_is_mended_by_running_it_again(shop: Shop) -> None:
    good, better, worse = shop.run(0.7), shop.run(0.8, range(3)), shop.run(0.6)
    command = [sys.executable, "-m", "tests.registry.racing", shop.uri, "killed", good, better]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    *killed, _ = done.stdout.split("\n")[:-1]
    assert len(killed) == 7, "before each write (model, version, champion, previous), and after each but one"
    client = MlflowClient(shop.uri)
    for name in killed:
        load(f"{name}@champion", tracking_uri=shop.uri)  # it works even before anybody mends
        with pytest.raises(Exception, match="not better than the champion"):  # whoever comes next mends
            promote(tracking_uri=shop.uri, experiment="registry", name=name, run_id=worse)
        promote(tracking_uri=shop.uri, experiment="registry", name=name, run_id=better)
        versions = {v.run_id: v.version for v in client.search_model_versions(f"name = '{name}'")}
        aliases = client.get_registered_model(name).aliases
        assert aliases == {"champion": versions[better], "previous": versions[good]}
        assert len(versions) == 2
