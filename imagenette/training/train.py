"""One tracked training run, from top to bottom. Every part is a module of its own; here they meet.

config -> data -> batches; config -> network, optimizer -> state (restored where a run goes on)
for each epoch: train, evaluate; checkpoint first, then the tracker
-> models, figures, tables -> Result
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from imagenette.config import Config
from imagenette.data import Dataset
from imagenette.data.augment import amounts
from imagenette.data.batches import EvalBatches, Normalizer, TrainBatches
from imagenette.data.plan import epoch_sizes, split_positions
from imagenette.data.resident import pictures
from imagenette.errors import InputError, RunError
from imagenette.network import kernels, models
from imagenette.records import Epoch
from imagenette.results import Status
from imagenette.tracking import Tracker, null_tracker
from imagenette.training import lifecycle, optim
from imagenette.training.checkpoint import Checkpoints
from imagenette.training.distributed import World, choose_gpu_kernels, join, loader_threads
from imagenette.training.extend import CHECKPOINTS, why_not
from imagenette.training.job import Job, Result, as_begun
from imagenette.training.loop import Diverged, Stopped, evaluate, fit
from imagenette.training.progress import Progress
from imagenette.training.step import Task, TrainState, new_state
from imagenette.training.system import SystemReader, machine

Stop = Callable[[], bool]
Prune = Callable[[Sequence[Epoch]], bool]
SAVING_SHARE = 0.05
"""Of a GPU's time: a save takes as long as an epoch of small images does there."""


def run(
    job: Job, dataset: Dataset, *, stop: Stop = lambda: False, prune: Prune = lambda history: False
) -> Result:
    """Train job.config on dataset, on every rank of the world that this process is part of.

    stop: called at every step; once it is true on any rank, all save and end as `preempted`.
    prune: called on rank 0 after every epoch but the last; once it is true, all end as `pruned`.
    Raises RunError where the run cannot go on; the run is then marked with the reason.
    """
    job = as_begun(job)
    choose_gpu_kernels(job.config)
    with join(job.config.device, stop=stop) as world:
        digests = world.gather(dataset.digest)
        if others := [rank for rank, digest in enumerate(digests) if digest != digests[0]]:
            raise InputError(f"data={job.config.data}: rank {others[0]} has other images than rank 0")
        task = make_task(job.config, dataset, world)
        state = make_state(job.config, len(dataset.classes), world)
        share = SAVING_SHARE if world.device.type == "cuda" else 1.0
        store = Checkpoints(job.output / CHECKPOINTS, world, data=dataset.digest, share=share)
        store.restore(state)

        facts = {"parameters": str(models.parameter_count(state.net)), **machine(world.device, world.size)}
        opened = world.first_does(
            lambda: lifecycle.open_tracker(job, dataset, task, facts=facts, history=state.history)
        )
        tracker = opened or null_tracker()
        if world.watch and world.first:
            world.watch.before_exit = lambda lost: lifecycle.fail(job, tracker, lost)
        try:
            ended = train(job, dataset, task, state, store, tracker, world, stop=stop, prune=prune)
        except BaseException as error:
            if world.first:
                lifecycle.fail(job, tracker, world.watch.cause(error) if world.watch else error)
            raise
        result = world.from_first(ended)
        assert result is not None
        if world.first and result.status.complete:  # only now that its result is on the disk
            store.discard(keep_last=result.status is Status.FINISHED and not why_not(job.config))
        return result


def train(
    job: Job,
    dataset: Dataset,
    task: Task,
    state: TrainState,
    store: Checkpoints,
    tracker: Tracker,
    world: World,
    *,
    stop: Stop,
    prune: Prune,
) -> Result | None:
    """From where the state stands to the run's end, or to a stop. Only rank 0 gets a result."""
    system = SystemReader(world.device)

    def ending() -> bool:
        return stop() or tracker.lost

    def stepped(step: int, images: int, loss: float | None) -> None:
        tracker.begin()
        progress.step(step, images, loss)
        if not progress.said:  # known a while after the first step
            progress.say([f"in MLflow: {page}" for page in tracker.pages[:1]])

    def track(epochs: Sequence[Epoch]) -> None:
        """Only what is saved, so that no epoch that has to be trained again is there twice."""
        for epoch in epochs:
            world.first_does(partial(tracker.log, epoch))  # raises on all ranks what it raises on rank 0

    try:
        last = None
        with Progress(state, task, shown=world.first) as progress:
            for epoch, last in fit(
                state,
                task,
                world,
                stop=ending,
                on_step=stepped,
                on_evaluated=progress.evaluated,
                read_system=system,
            ):
                progress.doing(f"epoch {epoch.index}/{job.config.epochs}: saving")
                end = epoch.index == job.config.epochs
                track(store.save_epoch(state, last, by_holdout=task.holdout is not None, end=end))
                progress.epoch(epoch)
                if any(world.any(world.first and not end and prune(state.history))):
                    if store.epochs < epoch.index:
                        track(store.save(state))
                    return world.first_does(lambda: lifecycle.prune(job, state, tracker))
            if last is None:  # resumed after the last epoch
                progress.doing("evaluating test")
                _, last = evaluate(state.judged, task.test, world=world, normalize=task.normalize, stop=stop)
            return world.first_does(
                lambda: lifecycle.finish(
                    job, dataset, task, state, store, last, tracker, doing=progress.doing
                )
            )
    except Stopped:
        track(store.save(state))
        return world.first_does(lambda: lifecycle.preempt(job, state, tracker))
    except Diverged:  # nobody goes on from there: its epochs need no state
        track(state.history[store.epochs :])
        raise
    except torch.OutOfMemoryError as error:
        config = job.config
        raise RunError(
            f"out of GPU memory at batch_size={config.batch_size}, size={config.size}: choose a smaller one, "
            f"or more processes; the state after epoch {store.epochs} is saved"
        ) from error


def make_task(config: Config, dataset: Dataset, world: World) -> Task:
    """The data as batches for this rank, and how the loop goes over them."""
    training, held = split_positions(dataset.train.labels, holdout=config.holdout, limit=config.limit)
    everything, _ = split_positions(dataset.test.labels, holdout=0, limit=0)
    ranks: dict[str, Any] = {"rank": world.rank, "world_size": world.size}
    threads = loader_threads(config.workers)
    evaluation: dict[str, Any] = {
        "size": config.eval_size,
        "batch_size": eval_batch(config.eval_size, world),
        "threads": threads,
        "device": world.device,
        **ranks,
    }
    train = TrainBatches(
        dataset.train,
        training,
        pictures(dataset.train, world.device, threads=threads),
        seed=config.seed,
        batch_size=config.batch_size,
        drop_last=config.drop_last,
        sizes=epoch_sizes(config.epochs, first=config.start_size, last=config.size),
        crop_scale=config.crop_scale,
        flip=config.flip,
        cutmix=config.cutmix,
        augmentations=amounts(config),
        classes=len(dataset.classes),
        ahead=2 if world.device.type == "cuda" else 0,
        **ranks,
    )
    needs_float32 = models.needs_float32(config.architecture, world.device)
    return Task(
        config=config,
        train=train,
        holdout=EvalBatches(dataset.train, held, **evaluation) if len(held) else None,
        test=EvalBatches(dataset.test, everything, **evaluation),
        normalize=Normalizer(dataset, world.device),
        bfloat16=config.precision == "bfloat16" and not needs_float32,
    )


def eval_batch(size: int, world: World) -> int:
    """Images at once in evaluation, per rank; it changes nothing but speed. A GPU gets as many pixels as 512
    images of 128 px have: then computing takes longer than launching."""
    return max(32, 512 * 128**2 // size**2) if world.device.type == "cuda" else 128


def make_state(config: Config, classes: int, world: World) -> TrainState:
    """A fresh network and optimizer: the state before the first step."""
    net = models.build(
        config.depth,
        architecture=config.architecture,
        activation=config.activation,
        classes=classes,
        seed=config.seed,
        zero_init=config.zero_init,
        bn_group=config.bn_group,
        # So that what is computed does not depend on how many processes there are.
        sync_bn=config.sync_bn or (world.size > 1 and config.has_depth and not config.bn_group),
    ).to(world.device)
    if config.kernels == "auto" and world.device.type == "cpu":
        kernels.use(net)
    optimizer = optim.build(
        net,
        config.optimizer,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        decay_norm_bias=config.decay_norm_bias,
        bfloat16=config.precision == "bfloat16",
        recorded=world.records,
    )
    return new_state(net, optimizer, averaged=config.ema > 0, device=world.device)
