"""Prune any network, without experiment files, Luigi or result folders."""

from __future__ import annotations

from luigi_prune.api.mask_hooks import release
from luigi_prune.api.network_by_name import network
from luigi_prune.api.prune_network import MethodRow, methods, prune
from luigi_prune.api.pruned import Pruned, PrunedLayer, load

__all__ = ["MethodRow", "Pruned", "PrunedLayer", "load", "methods", "network", "prune", "release"]
