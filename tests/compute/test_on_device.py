"""Pruning, training and evaluation on a device: nothing is left on the CPU, and the result is the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import api, registry
from luigi_prune.api.mask_hooks import held_masks, hold
from luigi_prune.compute.metrics.evaluation import evaluate
from luigi_prune.compute.pruning.torchprune.gradient_propagation import REFERENCE
from tests.compute.digits_training import CPU, assert_same, dropout_net, run, settings, splits_of
from tests.compute.pretended_device import OnDevice, pretended_device
from tests.compute.pruning.test_contract import prune_like
from tests.compute.pruning.zoo import trained_like
from tests.compute.synchronisations import count_synchronisations


def batches(example: Tensor) -> list[tuple[Tensor, Tensor]]:
    targets = (torch.arange(len(example)) % 10).to(example.device)
    return [(example, targets), (example.flip(0), targets)]


def assert_same_state(there: nn.Module, here: nn.Module) -> None:
    one, other = there.state_dict(), here.state_dict()
    assert list(one) == list(other)
    for name, value in one.items():
        assert isinstance(value, OnDevice), name
        assert torch.equal(value.cpu(), other[name]), name


@pytest.mark.parametrize("method", list(registry.METHODS))
def test_every_method_prunes_on_the_device_as_on_the_cpu(method: str) -> None:
    network, example = trained_like("convnet")
    here = prune_like(network, method, 0.4, example, calibration=batches(example))
    with pretended_device() as device:
        example = example.to(device)
        there = prune_like(copy.deepcopy(network).to(device), method, 0.4, example, calibration=batches(example))
        assert_same_state(there.network, here.network)
        assert all(isinstance(mask, OnDevice) for mask in there.masks.values())
        assert (there.size, there.flops, there.layers) == (here.size, here.flops, here.layers)


@pytest.mark.parametrize("method", ["ThresNet", "UniNet", "SoftNet", "ThiNet", "PCANet"])
def test_the_reference_s_rules_on_the_device(method: str) -> None:
    network, example = trained_like("plain")
    here = prune_like(network, method, 0.5, example, calibration=batches(example), rules=REFERENCE)
    with pretended_device() as device:
        example = example.to(device)
        there = prune_like(network.to(device), method, 0.5, example, calibration=batches(example), rules=REFERENCE)
        assert_same_state(there.network, here.network)


@pytest.mark.parametrize(("method", "most"), [("ThresNet", 40), ("FilterThresNet", 55), ("SiPPNet", 95)])
def test_few_waits(method: str, most: int) -> None:
    network, example = trained_like("convnet")
    with pretended_device() as device:
        network, example = network.to(device), example.to(device)
        given = batches(example)
        with count_synchronisations() as counts:
            prune_like(network, method, 0.4, example, calibration=given)
    assert 0 < counts.total <= most, counts.by_operation


def test_a_selection_moves_no_whole_tensor_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies to the CPU are numbers per layer or filter, and rare rows that are drawn from very often."""
    network, example = trained_like("convnet")
    largest = 0

    def cpu(self: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, self.numel())
        return self.detach().to("cpu")

    monkeypatch.setattr(OnDevice, "cpu", cpu)
    with pretended_device() as device:
        network, example = network.to(device), example.to(device)
        for method in ("ThresNet", "UniNet", "FilterThresNet", "PFPNetTop"):
            prune_like(network, method, 0.4, example, calibration=batches(example))
    assert 0 < largest < 32 * 32 * 9 // 10  # a tenth of the largest layer


def test_api_s_result_lies_on_the_device_and_is_pruned_further() -> None:
    network, example = trained_like("convnet")
    with pretended_device() as device:
        pruned = api.prune(network.to(device), "ThresNet", 0.6, example_input=example.to(device))
        assert all(layer.mask is not None and layer.mask.device == device for layer in pruned.layers)
        again = api.prune(pruned, "ThresNet", 0.3, example_input=example.to(device))
        assert again.keep_ratio == pytest.approx(0.3, rel=0.01)
        for name, mask in pruned.masks.items():
            assert not bool((again.masks[name] & ~mask).any())


def test_zeros_stay_when_network_and_optimizer_move() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    kept = torch.rand(8, 4) < 0.5
    hold(network, {"0.weight": kept})
    x = torch.rand(6, 4)

    def step(device: torch.device) -> None:
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1, weight_decay=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            network(x.to(device)).square().sum().backward()
            weight = network[0].get_parameter("weight")
            assert weight.grad is not None
            assert not bool(weight.grad.cpu()[~kept].any())
            optimizer.step()
            assert not bool(weight.detach().cpu()[~kept].any())
            assert bool(weight.detach().cpu()[kept].all())

    step(CPU)
    with pretended_device() as device:
        network.to(device)
        step(device)
        assert held_masks(network)["0.weight"].device == device
        network.cpu()
        step(CPU)
    assert torch.equal(held_masks(network)["0.weight"], kept)


def test_the_gradient_hook_outlives_new_data_in_the_same_parameter() -> None:
    """What `network.cuda()` does: the parameter stays, its data is another tensor; here of another type."""
    network = nn.Linear(4, 3)
    kept = torch.rand(3, 4) < 0.5
    hold(network, {"weight": kept})
    before = network.weight
    network(torch.rand(2, 4)).sum().backward()  # now the parameter has an accumulator of the old type
    network.zero_grad()
    network.double()
    assert network.weight is before
    network(torch.rand(2, 4).double()).sum().backward()
    assert network.weight.grad is not None
    assert not bool(network.weight.grad[~kept].any())
    assert bool(network.weight.grad[kept].all())


@pytest.mark.parametrize(
    "optimizer", [("SGD", {"lr": 0.05, "momentum": 0.9, "fused": False}), ("Adam", {"lr": 0.01, "fused": False})]
)
def test_training_on_the_device(optimizer: tuple[str, dict[str, Any]], tmp_path) -> None:
    kwargs = {**optimizer[1], "fused": False}  # the pretended device has no kernel
    training = settings(num_epochs=2, optimizer=optimizer[0], optimizer_kwargs=kwargs, early_stop_epoch=1)
    masks = {"conv.weight": torch.rand(6, 1, 3, 3) < 0.5}
    here = run(training, masks=masks, rewind_epoch=1)
    with pretended_device() as device:
        there = run(training, masks=masks, rewind_epoch=1, device=device, checkpoint=tmp_path / "c")
    assert not any(isinstance(value, OnDevice) for value in there.state.values())
    assert_same(there, here)


def test_a_step_on_the_device_waits_for_nothing() -> None:
    """Data on the device, augmented and normalised there: only what an epoch reports is read."""
    crop = {"type": "RandomCrop", "kwargs": {"size": 8, "padding": 1}}
    counted = {}
    with pretended_device() as device:
        for batch_size in (128, 32):
            training = settings(num_epochs=1, batch_size=batch_size, test_batch_size=128, transforms_train=(crop,))
            splits = splits_of(training)
            splits.train.to(device)
            splits.validation.to(device)
            with count_synchronisations() as counts:
                run(training, splits=splits, device=device)
            counted[batch_size] = counts.total
    assert counted[32] == counted[128]


def test_evaluation_on_the_device() -> None:
    training = settings()
    samples = splits_of(training).validation
    given: dict[str, Any] = {"loss": "CrossEntropyLoss", "metrics": training.metrics_test, "batch_size": 50}
    here = evaluate(dropout_net(), samples, **given, device=CPU)
    with pretended_device() as device:
        there = evaluate(dropout_net(), samples, **given, device=device)
    assert there == here


def test_a_loss_with_class_weights_prunes_on_the_device() -> None:
    network, example = trained_like("plain")
    with pretended_device() as device:
        weight = torch.ones(10).to(device)
        pruned = prune_like(
            network.to(device),
            "SnipNet",
            0.5,
            example.to(device),
            calibration=batches(example.to(device)),
            loss=lambda outputs, targets: F.cross_entropy(outputs, targets, weight),
        )
    assert pruned.size / pruned.original_size == pytest.approx(0.5, rel=0.01)
