import dataclasses
import itertools

import numpy as np
import pytest
import torch
from digits_training import AUGMENTED, CPU, NORMALISED, assert_same, dropout_net, run, settings, splits_of
from torch import nn

from luigi_prune import registry
from luigi_prune.compute.data import Samples, load_test
from luigi_prune.compute.data.sample_order import epoch_order
from luigi_prune.compute.metrics.evaluation import evaluate
from luigi_prune.compute.networks import build
from luigi_prune.compute.training import checkpoint
from luigi_prune.compute.training.run import _warn_of_full_precision
from luigi_prune.config.schema import Component, SchedulerComponent
from luigi_prune.errors import ConfigError


def test_digits_are_learnt_and_the_history_says_how():
    training = settings(num_epochs=6, lr_schedulers=())
    records = []
    network = build("lenet300_100", (1, 8, 8), 10, seed=1)
    result = run(training, network, on_epoch=records.append)
    assert list(result.history) == [
        *("epoch", "learning_rate", "train_loss", "validation_loss"),
        *("train/TopK1", "train/MCorr", "validation/TopK1", "validation/MCorr", "kept_epoch"),
    ]
    assert result.history["epoch"].tolist() == list(range(6))
    assert result.history["epoch"].dtype == np.int64
    assert result.history["train_loss"][-1] < 0.3 * result.history["train_loss"][0]
    assert [record.validation["TopK1"] for record in records] == result.history["validation/TopK1"].tolist()
    network.load_state_dict(result.state)
    test = load_test("Digits", training, training_data="", local_data="")
    measured = evaluate(network, test, loss=training.loss, metrics=training.metrics_test, batch_size=100, device=CPU)
    assert measured["TopK1"] > 0.9
    assert list(measured) == ["loss", "TopK1", "MCorr"]


def test_it_is_what_a_plain_loop_does():
    training = settings(num_epochs=2)
    splits = splits_of(training)
    result = run(training, build("resnet8", (1, 8, 8), 10, seed=1), splits)
    network = build("resnet8", (1, 8, 8), 10, seed=1).train()
    optimizer = torch.optim.SGD(network.parameters(), **training.optimizer_kwargs, fused=True)  # rounds as ours does
    step, losses, right = 0, [], 0
    for epoch in range(2):
        for batch in np.split(epoch_order(1294, 5, epoch), range(64, 1294, 64)):
            optimizer.param_groups[0]["lr"] = 0.05 * min(1, (step + 1) / 10)
            x, y = splits.train.get(batch)
            outputs = network(x)
            loss = nn.functional.cross_entropy(outputs, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(y))
            right += int((outputs.argmax(1) == y).sum()) if epoch == 1 else 0
            step += 1
    for name, tensor in network.state_dict().items():
        assert torch.allclose(result.state[name], tensor, atol=1e-6), name
    assert step == 42
    np.testing.assert_allclose(result.history["train_loss"], np.sum(np.reshape(losses, (2, 21)), 1) / 1294, rtol=1e-5)
    assert result.history["train/TopK1"][1] == pytest.approx(right / 1294, abs=1e-6)
    network.eval()
    x, y = splits.validation.get(np.arange(72))
    assert result.history["validation_loss"][-1] == pytest.approx(
        nn.functional.cross_entropy(network(x), y).item(), rel=1e-4
    )
    assert (result.history["learning_rate"] == 0.05).all()


def test_a_run_is_repeated_bit_for_bit_and_leaves_the_generators_alone():
    training = settings(transforms_train=AUGMENTED)
    torch.manual_seed(1)
    first = run(training)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    assert_same(first, run(training))
    other = run(training, seed=6)
    assert not torch.equal(first.state["fc.weight"], other.state["fc.weight"])


def test_dropout_draws_anew_at_every_step_and_alike_in_every_run():
    def dropped_units(**given):
        network, dropped = dropout_net(), []
        network.dropout.register_forward_hook(
            lambda module, inputs, output: dropped.append((output == 0) & (inputs[0] != 0)) if module.training else None
        )
        run(settings(num_epochs=2), network, **given)
        return [pattern for pattern in dropped if len(pattern) == 64]

    first, again, other = dropped_units(), dropped_units(), dropped_units(seed=6)
    assert len(first) == 40
    shared = [(one & two).sum() / one.sum() for one, two in itertools.pairwise(first)]
    assert max(shared) < 0.5  # 0.3 by chance
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_learning_rate_rewinding_starts_with_the_rate_of_that_step():
    training = settings(num_epochs=4, lr_schedulers=(SchedulerComponent(type="PolyLR", step_kwargs={"max_epoch": 4}),))
    whole, rest = run(training), run(training, start_epoch=2)
    assert rest.history["epoch"].tolist() == [2, 3]
    assert rest.history["learning_rate"].tolist() == whole.history["learning_rate"][2:].tolist()


def test_rewind_weights_are_those_at_the_start_of_the_epoch():
    training = settings(num_epochs=3)
    initial = {name: tensor.clone() for name, tensor in dropout_net().state_dict().items()}
    at_zero = run(training, rewind_epoch=0).rewind_state
    assert all(torch.equal(at_zero[name], initial[name]) for name in initial)
    at_two = run(training, rewind_epoch=2).rewind_state
    # The same steps as the longer training: its rates do not depend on the number of epochs.
    after_two = run(settings(num_epochs=2)).state
    assert all(torch.equal(at_two[name], after_two[name]) for name in initial)
    at_end = run(training, rewind_epoch=3)
    assert all(torch.equal(at_end.rewind_state[name], at_end.state[name]) for name in initial)
    assert run(training).rewind_state is None


def test_early_stopping_takes_the_latest_of_the_best_epochs(monkeypatch):
    scripted = {0: 0.99, 1: 0.5, 2: 0.8, 3: 0.8, 4: 0.7}
    kept = {}

    def compute(self):
        return {"TopK1": next(values), "MCorr": 0.0}

    monkeypatch.setattr("luigi_prune.compute.metrics.metric_set.MetricSet.compute", compute)

    def train_with(early_stop_epoch):
        nonlocal values
        values = iter(value for epoch in range(5) for value in (0.0, scripted[epoch]))  # training, then validation
        network = dropout_net()

        def keep(record):
            kept[record.epoch] = network.state_dict()["fc.weight"].clone()

        result = run(settings(num_epochs=5, early_stop_epoch=early_stop_epoch), network, on_epoch=keep)
        (epoch,) = [epoch for epoch, weight in kept.items() if torch.equal(weight, result.state["fc.weight"])]
        assert result.history["kept_epoch"] == epoch
        return epoch

    values = iter(())
    assert [train_with(epoch) for epoch in (1, 0, 4, 5)] == [3, 0, 4, 4]


def test_no_epochs_pass_the_weights_through():
    network = dropout_net()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = run(settings(), network, start_epoch=3, rewind_epoch=3)
    assert all(torch.equal(result.state[name], before[name]) for name in before)
    assert result.history.pop("kept_epoch") == -1
    assert [len(values) for values in result.history.values()] == [0] * 8
    assert "validation/MCorr" in result.history


@pytest.mark.parametrize("name", sorted(set(registry.OPTIMIZERS)))
def test_masks_hold_at_every_step_of_every_optimizer(name):
    kwargs = {"lr": 0.01, **({"momentum": 0.9, "nesterov": True, "weight_decay": 0.1} if name == "SGD" else {})}
    training = settings(num_epochs=1, optimizer=name, optimizer_kwargs=kwargs, batch_size=256)
    network = build("lenet300_100", (1, 8, 8), 10, seed=1)
    generator = torch.Generator().manual_seed(0)
    masks = {
        key: torch.rand(parameter.shape, generator=generator) > 0.5
        for key, parameter in network.named_parameters()
        if key in ("fc1.weight", "fc2.weight", "fc2.bias")
    }
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}

    def check(module, _):
        seen.append(all(not module.get_parameter(key)[~kept].any() for key, kept in masks.items()))

    seen: list[bool] = []
    network.register_forward_pre_hook(check)
    result = run(training, network, masks=masks)
    assert len(seen) >= 7
    assert all(seen)
    for key, kept in masks.items():
        assert not result.state[key][~kept].any()
        assert (result.state[key][kept] != before[key][kept]).float().mean() > 0.5
    assert np.isfinite(result.history["train_loss"]).all()


def test_without_eps_zeros_behind_a_mask_do_not_become_nan():
    masks = {"fc1.weight": torch.arange(300 * 64).reshape(300, 64) % 2 > 0}
    training = settings(num_epochs=1, optimizer="Adam", optimizer_kwargs={"lr": 0.001, "eps": 0}, batch_size=647)
    result = run(training, build("lenet300_100", (1, 8, 8), 10, seed=1), masks=masks)
    assert not result.state["fc1.weight"][~masks["fc1.weight"]].any()


def test_momentum_does_not_build_up_behind_a_mask(tmp_path):
    masked = {"fc.weight": torch.arange(3840).reshape(10, 384) % 2 > 0}
    run(settings(num_epochs=1), masks=masked, checkpoint=tmp_path / "c", checkpoint_seconds=0)
    state = checkpoint.decode(checkpoint.read_payload(tmp_path / "c"))["optimizer"]["state"]
    momentum = next(entry["momentum_buffer"] for entry in state.values() if entry["momentum_buffer"].numel() == 3840)
    assert not momentum[~masked["fc.weight"]].any()
    assert momentum[masked["fc.weight"]].all()


def test_masks_that_do_not_fit_the_network_are_refused():
    with pytest.raises(ConfigError, match="no such parameter"):
        run(settings(), masks={"fc2.weight": torch.ones(1)})
    with pytest.raises(ConfigError, match="expected shape"):
        run(settings(), masks={"fc.weight": torch.ones(1)})


def test_the_number_of_workers_does_not_matter():
    training = settings(
        num_epochs=1, transforms_train=(Component(type="ColorJitter", kwargs={"brightness": 0.5}), *AUGMENTED)
    )
    assert_same(run(training), run(training, loader_workers=2))


def test_evaluation_leaves_the_network_as_it_was_and_does_not_depend_on_batches():
    test = load_test("Digits", settings(), training_data="", local_data="")
    network = dropout_net().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    given = {"loss": "CrossEntropyLoss", "metrics": settings().metrics_test, "device": CPU}
    large, small = (evaluate(network, test, batch_size=size, **given) for size in (360, 7))
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert large == pytest.approx(small, rel=1e-5)


def test_each_sample_is_seen_once_per_epoch():
    training = settings(num_epochs=2, batch_size=100)
    splits, seen = splits_of(training), []
    get = splits.train.get

    class Watched(Samples):
        def __init__(self):
            vars(self).update(vars(splits.train))

        def get(self, indices, epoch=0, seed=0):
            seen.append((epoch, len(indices), list(indices)))
            return get(indices, epoch, seed)

    run(training, splits=dataclasses.replace(splits, train=Watched()))
    for epoch in range(2):
        assert [length for at, length, _ in seen if at == epoch] == [100] * 12 + [94]
        assert sorted(index for at, _, batch in seen if at == epoch for index in batch) == list(range(1294))
    assert seen[0][2] != seen[13][2]


@pytest.mark.parametrize(
    ("given", "message"),
    [({"start_epoch": 4}, "not within the 3 epochs"), ({"rewind_epoch": 1, "start_epoch": 2}, "not within the 3")],
)
def test_epochs_outside_the_schedule_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        run(settings(), **given)


def test_an_optimizer_loses_keywords_that_mean_nothing_and_refuses_others():
    run(
        settings(num_epochs=0, optimizer="Adam", optimizer_kwargs={"lr": 0.01, "nesterov": False, "betas": [0.9, 0.99]})
    )
    with pytest.raises(ConfigError, match="momentum"):
        run(settings(num_epochs=0, optimizer="Adam", optimizer_kwargs={"lr": 0.01, "momentum": 0.9}))


def test_mixed_precision_has_no_effect_on_a_cpu_which_is_recorded_and_said_once(caplog):
    _warn_of_full_precision.cache_clear()
    off = run(settings(num_epochs=1, enable_amp=False))
    assert caplog.messages == []
    results = [run(settings(num_epochs=1)) for _ in range(2)]
    assert caplog.messages == ["enableAMP: trained without mixed precision, because a cpu has none"]
    for result in results:
        assert_same(result, off)
        assert result.precision == off.precision == "float32"


def test_final_transforms_reach_both_splits():
    splits = splits_of(settings(transforms_final=NORMALISED))
    x, _ = splits.validation.get(np.arange(72))
    assert x.min().item() == pytest.approx(-0.3 / 0.38)
    assert splits.train.in_memory
