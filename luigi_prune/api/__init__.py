"""Prune any network, without experiment files, Luigi or result folders; and take networks out of experiments."""

from __future__ import annotations

from luigi_prune.api.compacted import Compacted
from luigi_prune.api.disk_sizes import disk_sizes
from luigi_prune.api.exporting import export
from luigi_prune.api.finished import FinishedNetwork
from luigi_prune.api.load_file import load
from luigi_prune.api.mask_hooks import release
from luigi_prune.api.network_by_name import network
from luigi_prune.api.prune_network import MethodRow, methods, prune
from luigi_prune.api.pruned import Pruned, PrunedLayer
from luigi_prune.compute.latency import Latency, measure_latency

__all__ = [
    "Compacted",
    "FinishedNetwork",
    "Latency",
    "MethodRow",
    "Pruned",
    "PrunedLayer",
    "disk_sizes",
    "export",
    "load",
    "measure_latency",
    "methods",
    "network",
    "prune",
    "release",
]
