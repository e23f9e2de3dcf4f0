"""Training towers on several Ray Train workers, each with some of the users, which Ray Data hands out.

Each step is that of one process with the batches of all workers in one: the workers add up their gradients. With some
40 steps an epoch, whatever the number of events, this sends little: docs/decisions/0040-towers.md.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import orjson
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from models.training.distributed import WorkersError
from models.training.tower_examples import Examples, history_of
from models.training.towers import Batch, Progress, Towers, TowerSettings, Training, new_towers

_PARTS = 8  # rows of the dataset for each worker
_COLUMNS = ("user", "item", "chosen", "weight", "learn", "past")
_MEMBERS, _LOSSES, _PROGRESS = "members.pt", "losses.json", "progress.json"


def check_ray() -> None:
    """Raises WorkersError when Ray Train or Ray Data is not installed."""
    try:
        import ray.data
        import ray.train.torch  # noqa: F401
    except ImportError as error:
        raise WorkersError(f"Several workers need pip install 'flywheel-serve[workers]': {error}") from None


def fit_towers_on_workers(
    workers: int,
    examples: Examples,
    epochs: int,
    settings: TowerSettings,
    folder: Path,
    progress: Progress,
    start: Sequence[Towers] = (),
) -> tuple[list[Towers], list[tuple[int, float]]]:
    """`models.training.towers.fit_towers` on so many workers, each on a CPU of the Ray cluster.

    The workers read and write below `folder`, at the same path as the caller. Raises WorkersError.
    """
    check_ray()
    import ray.data
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    members = list(start) or [_seeded(examples, settings, i) for i in range(settings.members)]
    parts = workers * _PARTS
    with tempfile.TemporaryDirectory(dir=folder, prefix="ray-train-") as scratch, _cluster():
        torch.save(members, Path(scratch) / _MEMBERS)
        config = {
            "shared": examples.only(np.zeros(0, np.int64)), "epochs": epochs, "settings": settings,
            "folder": Path(scratch), "anchored": bool(start), "nice": os.nice(0),
        }  # fmt: skip
        trainer = TorchTrainer(
            _train,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=workers),
            run_config=RunConfig(storage_path=scratch),
            datasets={"events": ray.data.from_items(list(_parts(examples, parts)), override_num_blocks=parts)},
        )
        try:
            with _Told(Path(scratch) / _PROGRESS, progress):
                trainer.fit()
        except Exception as error:  # Ray Train wraps whatever a worker raised
            raise WorkersError(f"Training on {workers} workers failed: {error}") from error
        found: list[Towers] = torch.load(Path(scratch) / _MEMBERS, weights_only=False)
        return found, [(step, loss) for step, loss in orjson.loads((Path(scratch) / _LOSSES).read_bytes())]


@contextmanager
def _cluster() -> Iterator[None]:
    """Ray as the caller started it, otherwise that at RAY_ADDRESS, or one on this machine, for the training alone."""
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def _seeded(examples: Examples, settings: TowerSettings, member: int) -> Towers:
    torch.manual_seed(settings.seed + member)
    return new_towers(examples, settings)


def _parts(examples: Examples, count: int) -> Iterator[dict[str, NDArray[Any]]]:
    """The events in `count` rows, each with all events of some users: Ray Data hands out as many rows to each."""
    part = np.random.default_rng(0).integers(0, count, examples.users)[examples.user]
    for number in range(count):
        rows = np.flatnonzero(part == number)
        columns = {name: getattr(examples, name)[rows] for name in _COLUMNS}
        yield {**columns, "context": examples.context_features[rows].ravel()}


def _joined(rows: Sequence[dict[str, Any]], shared: Examples) -> Examples:
    """The examples of one worker: the events in `rows`, sorted by user, and all users and items."""
    columns = {name: np.concatenate([np.asarray(row[name]) for row in rows]) for name in _COLUMNS}
    order = np.argsort(columns["user"], kind="stable")
    context = np.concatenate([np.asarray(row["context"], np.float32) for row in rows])
    context = context.reshape(len(order), shared.context_features.shape[1])
    kept = {name: column[order].astype(getattr(shared, name).dtype) for name, column in columns.items()}
    return shared._replace(**kept, context_features=context[order])


def _train(config: dict[str, Any]) -> None:
    """The training of one worker. All end with the same towers, which rank 0 writes."""
    from ray import train

    os.nice(config["nice"] - os.nice(0))  # the caller's priority, below that of serving
    torch.set_num_threads(1)
    rank, folder, epochs, settings = dist.get_rank(), config["folder"], config["epochs"], config["settings"]
    examples = _joined(list(train.get_dataset_shard("events").iter_rows()), config["shared"])
    history = history_of(examples)
    members: list[Towers] = torch.load(folder / _MEMBERS, weights_only=False)
    dist.barrier()  # before rank 0 writes the file again
    losses = []
    for i, towers in enumerate(members):
        seed = settings.seed + i + 1000 * rank
        training = _Shared(examples, history, settings, seed, towers, anchored=config["anchored"])
        for epoch in range(epochs):
            if rank == 0:
                (folder / _PROGRESS).write_bytes(orjson.dumps([i * epochs + epoch, len(members) * epochs]))
            loss = training.run_epoch()
            if i == 0:
                losses.append(((epoch + 1) * len(training.batches), loss))
    if rank == 0:
        torch.save(members, folder / _MEMBERS)
        (folder / _LOSSES).write_bytes(orjson.dumps(losses))


class _Shared(Training):
    """A training whose steps are taken together with all workers."""

    def _batches(self, rng: np.random.Generator) -> Iterator[Batch | None]:
        own = super()._batches(rng)
        while True:
            batch = next(own, None)
            left = torch.tensor(float(batch is not None))
            dist.all_reduce(left)
            if not left:
                return
            yield batch

    def _set_gradients(self, batch: Batch | None) -> tuple[float, float]:
        loss, weight = super()._set_gradients(batch)
        parts = [part for part in self.towers.parameters() if part.numel()]
        sums = [torch.zeros(part.numel()) if part.grad is None else part.grad.ravel() * weight for part in parts]
        total = torch.cat([*sums, torch.tensor([loss, weight])])
        dist.all_reduce(total)
        loss, weight = total[-2:].tolist()
        gradients = total[:-2].split([part.numel() for part in parts])  # type: ignore[no-untyped-call]
        for part, gradient in zip(parts, gradients, strict=True):
            part.grad = (gradient / weight).view_as(part)
        return loss, weight


class _Told:
    """Calls `progress` in this process with what a worker writes to `file`."""

    def __init__(self, file: Path, progress: Progress):
        self._file, self._progress, self._ended = file, progress, Event()
        self._thread = Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(1.0):
            try:
                done, total = orjson.loads(self._file.read_bytes())
            except (OSError, ValueError):  # not yet, or half of it is written
                continue
            self._progress(done, total)
