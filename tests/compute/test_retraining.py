"""Retraining after each kind of pruning, beside a loop written from the rules of the reference."""

import copy
import warnings

import numpy as np
import pytest
import torch
from digits_training import run, settings, splits_of
from torch import nn

from luigi_prune import api
from luigi_prune.compute.data.sample_order import epoch_order
from luigi_prune.compute.networks import build
from luigi_prune.config.schema import SchedulerComponent

STEPS = 21  # of an epoch: 1294 samples in batches of 64, the last one smaller
KINDS = [("UniNet", "paper"), ("UniNet", "reference"), ("FilterThresNet", "reference"), ("SVDErrorNet", "paper")]


def pruned_digits_net(method, rules, splits):
    network = build("lenet300_100", (1, 8, 8), 10, seed=1)
    calibration = [splits.calibration.get(np.arange(start, start + 4)) for start in range(0, 32, 4)]
    loss = nn.functional.cross_entropy
    return api.prune(network, method, 0.1, calibration=calibration, loss=loss, rules=rules)


def retrain_by_the_reference(network, splits, optimizer_kwargs, start_epoch):
    """Train the epochs [start_epoch, 3): zeros are put back after each step; gradients and momenta are not masked."""
    parameters = list(network.parameters())
    zeros = [parameter.data == 0 for parameter in parameters]
    optimizer = torch.optim.SGD(parameters, **optimizer_kwargs)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2 * STEPS], gamma=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of schedulers that step before their optimizer
        for _ in range(start_epoch * STEPS):
            scheduler.step()
    network.train()
    for epoch in range(start_epoch, 3):
        for batch in np.split(epoch_order(1294, 5, epoch), range(64, 1294, 64)):
            x, y = splits.train.get(batch)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
            scheduler.step()
            for parameter, zero in zip(parameters, zeros, strict=True):
                parameter.data.masked_fill_(zero, 0)


@pytest.mark.parametrize(("method", "rules"), KINDS)
@pytest.mark.parametrize("start_epoch", [0, 1])
def test_retraining_is_that_of_the_reference(method, rules, start_epoch):
    step_down = SchedulerComponent(type="MultiStepLR", step_kwargs={"milestones": [2]}, kwargs={"gamma": 0.1})
    training = settings(lr_schedulers=(step_down,))
    splits = splits_of(training)
    pruned = pruned_digits_net(method, rules, splits)
    expected = copy.deepcopy(pruned.network)
    retrain_by_the_reference(expected, splits, training.optimizer_kwargs, start_epoch)
    before = copy.deepcopy(pruned.network.state_dict())
    result = run(training, pruned.network, splits, masks=pruned.masks, start_epoch=start_epoch)
    for name, weights in expected.state_dict().items():
        assert torch.allclose(result.state[name], weights, atol=1e-5), name
        assert not torch.allclose(weights, before[name], atol=1e-3) or not weights.any(), name
