"""Samples that shape a network do not judge it, and no two steps of a cascade train on the same order of samples."""

from __future__ import annotations

import pytest
import torch

from luigi_prune.identity.spec import ChainSpec, TrainSpec, base_specs, chain_specs
from luigi_prune.jobs.inputs import example_input, initial_network, read_calibration, read_splits
from luigi_prune.jobs.retrain_job import retraining_seed
from tests.identity.test_keys import experiment

METHODS = ["ThresNet", "SnipNet", "ALDSNet", "FakeNet"]


def chains(mode: str, method: str, repetition: int = 0, iterations: int = -1) -> list[ChainSpec]:
    """Return the chains of an experiment with three ratios, one per retrained ratio."""
    settings = experiment(
        experiments__mode=mode, experiments__methods=METHODS, experiments__retrain_iterations=iterations
    )
    return chain_specs(settings, base_specs(settings)[0], method, repetition)


@pytest.mark.parametrize("mode", ["cascade", "cascade-rewind"])
def test_every_retraining_of_a_cascade_has_a_seed_of_its_own_that_all_methods_share(mode):
    seeds = [[retraining_seed(chain) for chain in chains(mode, method)] for method in METHODS]
    assert len(set(seeds[0])) == 3
    assert seeds == [seeds[0]] * len(METHODS)
    assert set(seeds[0]).isdisjoint(retraining_seed(chain) for chain in chains(mode, "ThresNet", repetition=1))


def test_steps_that_only_prune_count_for_nothing_and_one_shot_ratios_share_the_first_seed():
    (first, *_) = chains("cascade", "ThresNet")
    for iterations in (-1, 2):
        one_shot = chains("retrain", "ThresNet", iterations=iterations)
        assert {retraining_seed(chain) for chain in one_shot} == {retraining_seed(first)}
    pruned_first, second = chains("cascade", "ThresNet", iterations=2)
    assert len(pruned_first.steps) == 2
    assert [retraining_seed(pruned_first), retraining_seed(second)] == [
        retraining_seed(chain) for chain in chains("cascade", "ThresNet")[:2]
    ]


@pytest.mark.parametrize("net", [0, 1])
@pytest.mark.parametrize("delta_s", [1e-16, 10.0])
def test_calibration_reads_none_of_the_samples_that_train_or_validate(net, delta_s):
    chain = chains("retrain", "SnipNet")[0]
    base: TrainSpec = chain.base.model_copy(update={"net": net})
    chain = chain.model_copy(update={"base": base, "delta_s": delta_s})
    splits = read_splits(base, base.training, {"directories": "{}"})
    network, example = initial_network(base, splits.input_shape), example_input(splits.calibration)
    drawn = torch.cat([x for x, _ in read_calibration(chain, network, splits, example)])
    assert len(drawn) == (71 if delta_s < 1 else 35)
    for part, shared in ((splits.calibration, True), (splits.validation, False), (splits.train, False)):
        samples, _ = part.get(range(len(part)))
        alike = (drawn[:, None] == samples[None]).flatten(2).all(2).any(1)
        assert bool(alike.all() if shared else alike.any()) == shared
