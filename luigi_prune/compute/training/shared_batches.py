"""Batches for several trainings, loaded once for all that read the same samples in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from luigi_prune.compute.data.loading import load_batches
from luigi_prune.compute.data.sample_order import epoch_order, global_batches, rank_share
from luigi_prune.compute.training.run import Run
from luigi_prune.compute.training.steppers import Batch

_Source = tuple[int, int]  # what the batches of an epoch depend on: the samples, and the seed of order and transforms


class SharedBatches:
    """The batches of the steps [runs[0].progress.step, end) of an epoch for runs that stand at the same step."""

    def __init__(self, runs: Sequence[Run], end: int):
        readers = {_source(run): run for run in runs}
        self._loading: dict[_Source, Iterator[Batch]] = {
            source: _batches(run, end, run.request.loader_workers // len(readers) or min(1, run.request.loader_workers))
            for source, run in readers.items()
        }

    def next(self, runs: Sequence[Run]) -> list[Batch | Exception]:
        """Return the next batch of each of `runs`, of which some have left the group, or the exception in its place."""
        found: dict[_Source, Batch | Exception] = {}
        for run in runs:
            if (source := _source(run)) not in found:
                try:
                    found[source] = next(self._loading[source])
                except Exception as error:
                    found[source] = error
        return [found[_source(run)] for run in runs]


def _source(run: Run) -> _Source:
    return id(run.request.splits.train), run.request.seed


def _batches(run: Run, end: int, workers: int) -> Iterator[Batch]:
    request, progress = run.request, run.progress
    order = epoch_order(len(request.splits.train), request.seed, progress.epoch)
    batches = global_batches(order, request.training.batch_size)[progress.step : end]
    loading = load_batches(
        request.splits.train,
        [rank_share(batch, request.ranks.rank, request.ranks.size) for batch in batches],
        epoch=progress.epoch,
        seed=request.seed,
        device=request.device,
        workers=workers,
    )
    for batch, (x, y) in zip(batches, loading, strict=True):
        yield Batch(x, y, len(batch))
