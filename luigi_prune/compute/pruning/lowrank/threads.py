"""Large layers side by side: eigenvalues use a second thread badly, two layers use it well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from luigi_prune.compute.pruning.lowrank.candidates import Candidates

Item = TypeVar("Item")
Result = TypeVar("Result")
WORTH_A_THREAD = 100_000  # weights of a layer; with smaller ones threads mostly wait for the interpreter


def map_layers(function: Callable[[Item], Result], items: Sequence[tuple[Candidates, Item]]) -> list[Result]:
    """Return `function` of every item, which belongs to the layer beside it; what it gives must not depend on order.

    Large layers on the CPU share torch's threads, the others follow one by one.
    """
    threads = torch.get_num_threads()
    large = [at for at, (layer, _) in enumerate(items) if layer.total >= WORTH_A_THREAD and layer.device.type == "cpu"]
    large.sort(key=lambda at: -items[at][0].total)  # the longest first, so that all end together
    workers = min(threads, len(large))
    found: dict[int, Result] = {}
    if workers > 1:
        try:
            with ThreadPoolExecutor(workers, "layers", torch.set_num_threads, (threads // workers,)) as pool:
                results = pool.map(lambda at: _without_gradients(function, items[at][1]), large)
                found.update(zip(large, results, strict=True))
        finally:
            torch.set_num_threads(threads)  # threads that begin later take the number that was set last
    return [found[at] if at in found else function(item) for at, (_, item) in enumerate(items)]


def _without_gradients(function: Callable[[Item], Result], item: Item) -> Result:
    with torch.inference_mode(False), torch.no_grad():  # every thread has modes of its own
        return function(item)
