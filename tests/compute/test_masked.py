"""Pruned entries stay zero in the same way whoever clears them: the loop, a network's hooks, rewinding."""

from __future__ import annotations

import pytest
import torch
from digits_training import assert_same, run, settings

from luigi_prune.api.mask_hooks import hold
from luigi_prune.compute.masked import apply_masks, masked_parameters
from luigi_prune.compute.networks import build
from luigi_prune.errors import ConfigError


def lenet():
    return build("lenet300_100", (1, 8, 8), 10, seed=1)


def masks_of(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(value.shape, generator=generator) > 0.5 for name, value in network.named_parameters()}


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "LBFGS"])
def test_the_loop_and_the_hooks_train_the_same_weights(optimizer):
    training = settings(num_epochs=1, batch_size=400, optimizer=optimizer, optimizer_kwargs={"lr": 0.05})
    masks = masks_of(lenet())
    by_loop, by_hooks = run(training, lenet(), masks=masks), run(training, hold(lenet(), masks))
    assert_same(by_loop, by_hooks)
    assert all(not by_loop.state[name][~mask].any() for name, mask in masks.items())


def test_pruned_entries_become_plain_zeros_and_the_others_stay():
    network, masks = lenet(), masks_of(lenet())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        network.fc1.weight[0, 0], masks["fc1.weight"][0, 0] = torch.nan, False
    apply_masks(network, masks)
    for name, value in network.named_parameters():
        assert torch.equal(value, torch.where(masks[name], before[name], 0))
        assert not torch.signbit(value[~masks[name]]).any()


def test_masks_are_left_as_they_are_and_must_fit():
    network, masks = lenet(), masks_of(lenet())
    copies = {name: mask.clone() for name, mask in masks.items()}
    apply_masks(network, masks)
    assert all(torch.equal(mask, copies[name]) for name, mask in masks.items())
    with pytest.raises(ConfigError, match=r"mask 'fc9\.weight': the network has no such parameter"):
        masked_parameters(network, {"fc9.weight": torch.ones(1)})
    with pytest.raises(ConfigError, match=r"mask 'fc1.bias': expected shape \(300,\), got \(3,\)"):
        hold(network, {"fc1.bias": torch.ones(3)})
