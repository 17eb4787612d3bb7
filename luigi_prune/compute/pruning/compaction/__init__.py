"""Dead filters, channels, heads and ranks removed from a network: smaller layers that compute the same."""

from luigi_prune.compute.pruning.compaction.compact_network import Compaction, CompactLayer, compact, rebuild

__all__ = ["CompactLayer", "Compaction", "compact", "rebuild"]
