"""Micro-batches, channels as the last axis and torch.compile: other ways through the same training."""

import pytest
import torch
from digits_training import assert_same, dropout_net, run, settings
from torch import nn

from luigi_prune.compute.networks import build
from luigi_prune.compute.training.execution_forms import compiled
from luigi_prune.errors import ConfigError, Interrupted


def assert_close(one, other, tolerance=2e-5):
    assert list(one.state) == list(other.state)
    for name, tensor in one.state.items():
        assert torch.allclose(tensor, other.state[name], atol=tolerance), name
        assert tensor.stride() == other.state[name].stride(), name
    for name, values in one.history.items():
        assert values == pytest.approx(other.history[name], abs=1e-3), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss_kwargs": {"reduction": "sum"}, "optimizer_kwargs": {"lr": 0.001}},
        {"loss_kwargs": {"weight": [0.1 * (1 + digit) for digit in range(10)]}},
        {"optimizer": "LBFGS", "optimizer_kwargs": {"lr": 0.05, "max_iter": 2}, "lr_schedulers": (), "num_epochs": 1},
    ],
    ids=["mean", "sum", "weighted classes", "line search"],
)
def test_micro_batches_take_the_same_steps(changes):
    """Steps of 64 samples, in passes of 22, 21 and 21; the last of 14 in one."""
    sizes = []

    def network():
        made = build("lenet300_100", (1, 8, 8), 10, seed=1)
        made.register_forward_hook(lambda module, x, y: sizes.append(len(y)) if module.training else None)
        return made

    whole = run(settings(**changes), network())
    sizes.clear()
    tolerance = 2e-4 if "optimizer" in changes else 2e-5  # a line search amplifies rounding errors
    assert_close(whole, run(settings(**changes, micro_batch_size=25), network()), tolerance)
    assert set(sizes) == {22, 21, 14}


@pytest.mark.parametrize("changes", [{"channels_last": True}, {"micro_batch_size": 20}], ids=str)
def test_a_stopped_training_goes_on_bit_for_bit(changes, tmp_path):
    training = settings(num_epochs=2, **changes)
    steps = iter(range(1000))
    with pytest.raises(Interrupted):
        run(training, dropout_net(), checkpoint=tmp_path / "c", should_stop=lambda: next(steps) == 30)
    assert_same(run(training, dropout_net()), run(training, dropout_net(), checkpoint=tmp_path / "c"))


def test_channels_come_last_in_memory_and_first_in_the_result():
    def network(layouts):
        torch.manual_seed(0)
        stem = nn.Conv2d(1, 3, 1)  # memory of one channel has no order of axes
        made = nn.Sequential(stem, build("resnet8", (3, 8, 8), 10, seed=1))
        last = [module for module in made.modules() if isinstance(module, nn.Conv2d)][-1]
        last.register_forward_hook(
            lambda module, x, y: layouts.add(module.training and y.is_contiguous(memory_format=torch.channels_last))
        )
        return made

    before, after = set(), set()
    plain = run(settings(num_epochs=1, batch_size=647), network(before))
    assert_close(plain, run(settings(num_epochs=1, batch_size=647, channels_last=True), network(after)), 3e-4)
    assert (True in before, True in after) == (False, True)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same():
    plain, fast = (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2))
    fast.load_state_dict(plain.state_dict())
    training = settings(num_epochs=2, batch_size=647)
    with torch._inductor.config.patch(compile_threads=1):
        assert_close(run(training, plain), run(training.model_copy(update={"compile": True}), fast))


def test_without_a_compiler_compiling_is_refused_by_name():
    with (
        torch._inductor.config.patch({"compile_threads": 1, "cpp.cxx": (None, "no_such_compiler")}),
        pytest.raises(ConfigError, match=r"training\.compile: .* fails for Linear here \(.*C\+\+ compiler.*no_such"),
    ):
        compiled(nn.Linear(3, 2))(torch.ones(1, 3))
