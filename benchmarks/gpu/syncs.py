"""How often each method makes the CPU wait for the device."""

from __future__ import annotations

import importlib
import warnings

import torch

from benchmarks.gpu.facts import Facts
from benchmarks.gpu.masks import prune
from benchmarks.gpu.subjects import LOSS, calibration, pruning_methods, resnet20
from luigi_prune import api
from luigi_prune.compute.pruning.low_rank import spectra


def run(facts: Facts, device: torch.device) -> None:
    """Count while each method prunes ResNet20; the counts say nothing about how long the waiting is."""
    try:
        counting = importlib.import_module("benchmarks.gpu.synchronisations").count_synchronisations
    except ImportError as error:
        facts.skip("synchronisations per method", f"there is no benchmarks/gpu/synchronisations.py ({error})")
        return
    prune(resnet20(), "ThresNet", device)
    batches = calibration(device)
    for method in pruning_methods():
        with facts.attempt(method.name):
            network = resnet20().to(device)
            spectra.clear_cache()
            with warnings.catch_warnings(), counting() as counts:
                warnings.simplefilter("ignore", UserWarning)
                api.prune(network, method.name, keep_ratio=0.5, calibration=batches, loss=LOSS)
            most = ", ".join(f"{count} {name}" for name, count in counts.by_operation.most_common(3))
            value = f"{counts.total}{' (' + most + ')' if most else ''}"
            facts.measure(method.name, value, total=counts.total, by_operation=dict(counts.by_operation))
