"""Scores: one number per unit of every layer; larger means keep. A new score is a function and an entry in SCORES."""

from __future__ import annotations

from luigi_prune.compute.pruning.problem.records import Score
from luigi_prune.compute.pruning.scores import gradient, magnitude, reconstruction, sensitivity

SCORES: dict[str, Score] = {
    "magnitude": magnitude.absolute,
    "shuffled_magnitude": magnitude.shuffled,
    "uniform": magnitude.constant,
    "squared": magnitude.squared,
    "absolute_and_squared": magnitude.absolute_and_squared,
    "filter_l1": magnitude.filter_l1,
    "filter_l2": magnitude.filter_l2,
    "random_channel": magnitude.random_channel,
    "connection": gradient.connection,
    "weight_sensitivity": sensitivity.weight_mean,
    "weight_sensitivity_max": sensitivity.weight_max,
    "channel_sensitivity": sensitivity.channel_max,
    "greedy_rank": reconstruction.greedy_rank,
}
