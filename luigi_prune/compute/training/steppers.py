"""How the trainings of a group take their next step: the interface, and the plain way, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from torch import Tensor

from luigi_prune.compute.network_inputs import Inputs, copied
from luigi_prune.compute.training.run import Run
from luigi_prune.compute.training.step import optimize


class Batch(NamedTuple):
    """This process's share (x, y) of a global batch of `size` samples; members of a group may share its tensors."""

    x: Inputs
    y: Tensor
    size: int


class Stepper(Protocol):
    """Takes the steps of a group of runs that stand at the same step of the same schedule.

    Between `prepare` and `write_back` a stepper may keep weights and optimizer states elsewhere. Only the loop changes
    `run.progress`, and it calls `write_back` before anything else reads a run: validation, checkpoints, another
    stepper. After it, `step` may be called again: nothing has changed the runs' networks and optimizers.
    """

    def prepare(self, runs: Sequence[Run]) -> None:
        """Take over the runs of a group; called again, after `write_back`, with those that remain."""

    def step(self, batches: Sequence[Batch]) -> list[Exception | None]:
        """Take one step of each run with its batch; return the exception of each run that failed.

        Outputs and losses have been added to the tallies of the other runs, for which no failure makes a difference.
        """

    def write_back(self) -> None:
        """Bring the networks and optimizers of all runs up to date."""


class OneByOne:
    """Takes one step of each run after another, as each would take it alone, bit for bit."""

    def prepare(self, runs: Sequence[Run]) -> None:
        """Take over the runs; nothing is kept outside them."""
        self._runs = runs

    def step(self, batches: Sequence[Batch]) -> list[Exception | None]:
        """Take a step of each run."""
        errors: list[Exception | None] = []
        for place, (run, batch) in enumerate(zip(self._runs, batches, strict=True), start=1):
            x, y = batch.x, batch.y
            if any(later.x is x for later in batches[place:]):  # a network may change its inputs in place
                x, y = copied(x), copied(y)
            errors.append(failure(partial(optimize, run), x, y, batch.size))
        return errors

    def write_back(self) -> None:
        """Do nothing: the runs are up to date."""


def failure(take: Callable[[Inputs, Tensor, int], None], x: Inputs, y: Tensor, size: int) -> Exception | None:
    """Take a step with a batch; return the exception, if there is one."""
    try:
        take(x, y, size)
    except Exception as error:
        return error
    return None
