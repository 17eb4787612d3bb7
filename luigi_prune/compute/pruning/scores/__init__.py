"""Scores: one number per unit of every layer, larger means keep. A new one is a function and a row here."""

from __future__ import annotations

from luigi_prune.compute.pruning.protocol import Score
from luigi_prune.compute.pruning.scores import magnitude

SCORES: dict[str, Score] = {
    "magnitude": magnitude.absolute,
    "uniform": magnitude.uniform,
    "filter_l1": magnitude.filter_l1,
    "random_channel": magnitude.random_channel,
}
