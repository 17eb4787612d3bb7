"""The latency of an evaluated network: dense, masked and compact."""

from __future__ import annotations

import logging

from luigi_prune.compute import pruning
from luigi_prune.compute.latency import measure_latency
from luigi_prune.compute.network_inputs import Inputs, sample_shape, select
from luigi_prune.compute.pruning.compaction import compact
from luigi_prune.errors import ConfigError
from luigi_prune.execution.job import Context
from luigi_prune.identity.spec import TrainSpec
from luigi_prune.jobs.inputs import initial_network, restore_network
from luigi_prune.results.hdf5_file import Result

_SECONDS = 0.5  # for each network
log = logging.getLogger("luigi_prune")


def measured_latency(result: Result, base: TrainSpec, example: Inputs, context: Context) -> dict[str, float]:
    """Return the latency of the network in `result` on the batch `example`, by names that begin with `latency_`.

    Seconds of the dense, masked and compact network; `..._ratio`: over the dense one's, the median of rounds in which
    all are timed in turn. `latency_compact_flops`: multiply-adds of the compact network, zeros included.
    """
    shape = sample_shape(example)
    masked, masks = restore_network(result, base, shape, context.device)
    networks = {"dense": initial_network(base, shape).to(context.device), "masked": masked}
    found: dict[str, float] = {}
    try:
        networks["compact"] = compact(masked, example, masks).network
        found["latency_compact_flops"] = float(pruning.count_flops(networks["compact"], select(example, slice(1))))
    except ConfigError as error:
        log.warning(f"no latency of a compact network: {error}")
    for timed in measure_latency(networks, example, threads=context.threads, seconds=_SECONDS):
        found[f"latency_{timed.name}"] = timed.seconds
        if timed.name != "dense":
            found[f"latency_{timed.name}_ratio"] = timed.ratio
        found |= {"latency_batch": float(timed.batch), "latency_threads": float(timed.threads)}
    return found
