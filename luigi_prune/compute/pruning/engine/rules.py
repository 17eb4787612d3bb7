"""The rules by which a network is pruned: those of the papers, or those of the reference implementation."""

from __future__ import annotations

from luigi_prune.compute.pruning.problem.network_ends import ends_by_graph
from luigi_prune.compute.pruning.problem.records import Rules
from luigi_prune.compute.pruning.scores.reconstruction import uniform_samples
from luigi_prune.compute.pruning.selection.top_and_sample import SELECTIONS
from luigi_prune.compute.pruning.torchprune.gradient_propagation import REFERENCE
from luigi_prune.errors import ConfigError

PAPER = Rules(
    name="paper",
    find_ends=ends_by_graph,
    takes_every_kind=True,
    protects_ends=True,
    zeros_are_pruned=False,
    prunes_biases=True,
    selections=SELECTIONS,
    propagate_by_data=None,
    thinet_samples=uniform_samples,
    thinet_prunes_last=False,
    pca_adds_bias_twice=False,
    scales_epsilon=True,
    keeps_last_of_equals=False,
    ranks_channels_without_score=True,
    spends_remainder=True,
)
RULES = {rules.name: rules for rules in (PAPER, REFERENCE)}


def find_rules(name: str) -> Rules:
    """Return the rules called `name`; raises ConfigError for another name."""
    if name not in RULES:
        raise ConfigError(f"rules {name!r} is neither {' nor '.join(map(repr, RULES))}")
    return RULES[name]
