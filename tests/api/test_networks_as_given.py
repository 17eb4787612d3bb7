"""Networks as people bring them: wrapped, reparametrised, with zeros, in any layout, under any ambient settings."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from luigi_prune import api
from luigi_prune.compute.pruning import count_size
from luigi_prune.errors import ConfigError
from luigi_prune.registry import METHODS

pytestmark = pytest.mark.filterwarnings("ignore:.*(cannot be met|pruned without|masks of torch.nn.utils.prune)")
PRUNING = [name for name, row in METHODS.items() if row.granularity != "none"]
# One per kind of score, allocation and granularity.
KINDS = ["ThresNet", "SnipNet", "SiPPNet", "UniNet", "FilterThresNet", "PFPNet", "ThiNet"]
KINDS += ["ALDSNetPlus", "PCANet", "MessiNet"]
INPUTS = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(3))
TARGETS = torch.arange(6)


def plain() -> nn.Sequential:
    """Return a small trained-like network: two convolutions with BatchNorm, two linear layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
        network = nn.Sequential(*first, nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 6))
        nn.init.normal_(network[1].bias, std=0.3)  # type: ignore[arg-type]
    return network.eval()


def pruned(network: nn.Module | api.Pruned, method: str, ratio: object = 0.4, **settings: object) -> api.Pruned:
    """Return the network pruned with one calibration batch."""
    given: dict[str, object] = {"calibration": [(INPUTS, TARGETS)], "loss": F.cross_entropy, **settings}
    return api.prune(network, method, ratio, **given)  # type: ignore[arg-type]


def train(network: nn.Module) -> nn.Module:
    """Take a training step; return the network in evaluation mode."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    F.cross_entropy(network(INPUTS), TARGETS).backward()
    optimizer.step()
    optimizer.zero_grad()
    return network.eval()


class Outer(nn.Module):
    """The plain network, its layers under the names that they have in the two below."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Caching(Outer):
    """Keeps activations with their history, in an attribute and in containers."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.inner[:3](x)
        self.kept = [{"value": self.last}]
        return self.inner[3:](self.last)


class Counting(Outer):
    """Counts its calls in a buffer and in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.count += 1
        return self.inner(x)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _caching() -> nn.Module:
    network = Caching().eval()
    network(INPUTS)
    return network


def _compiled_inside() -> nn.Module:
    network = plain()
    network[3] = torch.compile(network[3])
    return network


def _compiled_in_place() -> nn.Module:
    network = plain()
    network.compile()
    return network


# The network, the plain one that it equals, and the settings around the call.
GIVEN: dict[str, tuple[Callable[[], Any], Callable[[], nn.Module], Callable[[], AbstractContextManager[Any]]]] = {
    "channels_last": (lambda: plain().to(memory_format=torch.channels_last), plain, nullcontext),
    "compiled": (lambda: torch.compile(plain()), plain, nullcontext),
    "compiled inside": (_compiled_inside, plain, nullcontext),
    "compiled in place": (_compiled_in_place, plain, nullcontext),
    "parallel": (lambda: nn.DataParallel(plain()), plain, nullcontext),
    "caching": (_caching, Outer, nullcontext),
    "counting": (Counting, Outer, nullcontext),
    "autocast": (plain, plain, lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    "default type": (plain, plain, lambda: default_dtype(torch.float64)),
}


@pytest.mark.parametrize("method", KINDS)
def test_it_is_pruned_like_the_plain_network(method: str) -> None:
    """The same weights are left, and everything else of the network is what it was."""
    equals = {make: pruned(make().eval(), method).network.state_dict() for make in (plain, Outer)}
    for kind, (make, equal, ambient) in GIVEN.items():
        network = make().eval()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with ambient():
            result = pruned(network, method)
        state = result.network.state_dict()
        assert state.keys() - {"count"} == equals[equal].keys(), kind
        assert all(torch.equal(value, state[name]) for name, value in equals[equal].items()), kind
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()), kind
        if kind == "counting":
            assert (int(state["count"]), result.network.calls) == (0, 0)
        if kind == "caching":  # a cascade
            train(result.network)
            assert pruned(result, method, 0.2).size < result.size


@pytest.mark.parametrize("method", ["ThresNet", "PFPNet", "ALDSNet", "ScratchNet", "ReferenceNet"])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_neither_the_network_nor_the_result_has_counted_our_runs(method: str, ratio: float) -> None:
    network = Counting()
    for each in (pruned(network, method, ratio).network, network):
        assert (each.calls, int(each.get_buffer("count"))) == (0, 0)


def test_the_layout_and_the_mode_stay() -> None:
    network = plain().to(memory_format=torch.channels_last).train()
    result = pruned(network, "ThresNet").network
    assert result.training
    assert result.get_parameter("3.weight").is_contiguous(memory_format=torch.channels_last)


def test_unwrapping_is_said_and_a_file_of_the_result_fits_the_wrapped_network(tmp_path: object) -> None:
    with pytest.warns(UserWarning, match=r"the network, 'module.3': pruned without DataParallel and torch\.compile"):
        result = pruned(nn.DataParallel(_compiled_inside()), "ThresNet")
    result.save(f"{tmp_path}/wrapped.h5")
    loaded = api.load(f"{tmp_path}/wrapped.h5", torch.compile(plain()))
    assert torch.equal(loaded.network(INPUTS), result.network(INPUTS))


# ----------------------------------------------------------------------------------------------------- reparametrised


def test_masks_of_torch_are_taken_over() -> None:
    network = plain()
    for index in (3, 6):
        torch_prune.l1_unstructured(network[index], "weight", 0.5)
    train(network)
    masks = {index: network[index].weight_mask.bool() for index in (3, 6)}
    with pytest.warns(UserWarning, match=r"'3', '6': the masks of torch.nn.utils.prune are kept by the result itself"):
        same = pruned(network, "ThresNet", 1.0)
    assert {name: mask.tolist() for name, mask in same.masks.items()} == {
        f"{index}.weight": mask.tolist() for index, mask in masks.items()
    }
    assert same.size == same.original_size == count_size(plain()) - (576 + 2048) // 2
    assert torch.equal(same.network(INPUTS), network(INPUTS))
    # The plain network with these zeros is pruned alike if its zeros count as removed.
    zeroed = plain()
    zeroed.load_state_dict(same.network.state_dict())
    one, other = pruned(network, "SiPPNet", 0.5), pruned(zeroed, "SiPPNet", 0.5, zeros="pruned")
    assert one.size == other.size
    assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())
    assert not any(one.network.get_parameter(f"{index}.weight")[~mask].any() for index, mask in masks.items())
    train(one.network)
    assert not any(one.network.get_parameter(f"{index}.weight")[~mask].any() for index, mask in masks.items())


PARAMETRISED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "old weight_norm": nn.utils.weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("kind", PARAMETRISED)
def test_a_computed_weight_is_left_alone_by_name(kind: str) -> None:
    network = plain()
    PARAMETRISED[kind](network[3])
    train(network).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for method in ("ThresNet", "SiPPNet", "PFPNet", "ALDSNet"):
        with pytest.warns(UserWarning, match="'3': not pruned, because the weight is computed from other parameters"):
            result = pruned(network, method, 0.5)
        state = result.network.state_dict()
        assert all(torch.equal(value, before[name]) for name, value in state.items() if name.startswith("3."))
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert result.size < count_size(network)
        copied = pruned(result, method, 0.45)  # its weights were computed with a history
        assert torch.isfinite(train(copied.network)(INPUTS)).all()
    only = nn.Sequential(nn.Flatten(), PARAMETRISED[kind](nn.Linear(108, 6)))
    with pytest.raises(ConfigError, match=r"no compressible layer.*; the weight of '1' is computed"):
        pruned(only, "ThresNet")


# -------------------------------------------------------------------------------------------------------------- zeros


class ZeroInitialised(nn.Module):
    """A zero head, a branch behind a zero scale, a branch behind a zero convolution, and a layer that is not used."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.stem, self.branch, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
            self.inside, self.zero_conv = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)
            self.hidden, self.head, self.idle = nn.Linear(128, 12), nn.Linear(12, 6), nn.Linear(12, 2)
        for parameter in (self.norm.weight, *self.zero_conv.parameters(), *self.head.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.norm(self.branch(x)) + self.zero_conv(torch.relu(self.inside(x)))
        x = torch.relu(self.hidden(x.flatten(1)))
        self.idle(x)
        return self.head(x)


@pytest.mark.parametrize("method", PRUNING)
def test_ratio_one_removes_nothing_and_zeros_are_parameters(method: str) -> None:
    network = ZeroInitialised().eval()
    with pytest.warns(UserWarning, match=r"'zero_conv.weight', 'head.weight': all entries are zero and not pruned"):
        result = pruned(network, method, 1.0)
    assert result.masks == {}
    assert result.size == result.original_size == sum(p.numel() for p in network.parameters())
    state = network.state_dict()
    kept = [torch.equal(value, state[name]) for name, value in result.network.state_dict().items()]
    assert all(kept) or METHODS[method].reinitialised


@pytest.mark.filterwarnings("ignore:.*all entries are zero")
@pytest.mark.parametrize("method", KINDS)
def test_what_lies_behind_zeros_is_alive_and_trains(method: str) -> None:
    network = ZeroInitialised().eval()
    result = pruned(network, method, 0.7)
    layers = {layer.name: layer for layer in result.layers}
    assert all(layer.kept for name, layer in layers.items() if name != "idle")
    if METHODS[method].granularity != "channel" and (hidden := layers["hidden"].mask) is not None:
        assert layers["head"].mask is not None
        assert layers["head"].mask[:, hidden.any(1)].all()  # whole, but for the inputs that are gone
    assert result.size == count_size(result.network, result.masks)
    assert result.keep_ratio == pytest.approx(0.7, abs=0.12)
    before = copy.deepcopy(result.network)
    for _ in range(3):
        train(result.network)
    for name in ("head", "hidden", "stem"):  # zeros that were kept have moved, and so have those that they kept still
        one, other = before.get_submodule(name), result.network.get_submodule(name)
        assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)), name
    head = result.network.get_submodule("head")
    if hasattr(head, "choice"):
        return
    mask = result.masks.get("head.weight", torch.ones(6, 12, dtype=torch.bool))
    assert head.get_parameter("weight")[mask].any()
    assert not head.get_parameter("weight")[~mask].any()


def test_zeros_of_a_network_that_was_pruned_without_masks() -> None:
    network = plain()
    with torch.no_grad():
        for index in (3, 6):
            weight = network.get_parameter(f"{index}.weight")
            weight[weight.abs() <= weight.abs().median()] = 0
    left = sum(int(parameter.count_nonzero()) for parameter in network.parameters())
    with pytest.warns(
        UserWarning, match=r"'3.weight', '6.weight': half of the entries or more are zero.*zeros='pruned'"
    ):
        result = pruned(network, "UniNet", 0.5)
    assert result.original_size == sum(parameter.numel() for parameter in network.parameters())
    result = pruned(network, "ThresNet", 0.5, zeros="pruned")
    assert result.warnings == []
    assert (result.original_size, result.keep_ratio) == (left, pytest.approx(0.5, rel=0.005))
    assert not (result.masks["6.weight"] & (network.get_parameter("6.weight") == 0)).any()
    result = pruned(network, "ThresNet", 1, zeros="pruned")
    assert result.size == left
    assert result.masks.keys() == {"3.weight", "6.weight"}
    result = pruned(network, "ThresNet", 0.5, rules="reference")  # zeros are pruned by its rules
    assert not (result.masks["6.weight"] & (network.get_parameter("6.weight") == 0)).any()
    with pytest.raises(ConfigError, match="zeros: expected 'kept' or 'pruned', got 'dead'"):
        pruned(network, "ThresNet", 0.5, zeros="dead")


def test_a_weight_that_becomes_zero_in_training_is_not_lost() -> None:
    first = pruned(plain(), "ThresNet", 0.6)
    mask = first.masks["6.weight"]
    with torch.no_grad():
        first.network.get_parameter("6.weight")[mask] *= torch.rand(int(mask.sum())) > 0.1
    again = pruned(first, "ThresNet", 0.6)
    assert again.size == first.size
    assert torch.equal(again.masks["6.weight"], mask)


# ---------------------------------------------------------------------------------------------------------- complaints


def _with(value: float, name: str = "3.weight") -> nn.Module:
    network = plain()
    network.state_dict()[name].view(-1)[0] = value
    return network


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_no_numbers_are_refused_by_name(method: str) -> None:
    for network, name in (
        (_with(torch.nan), "3.weight"),
        (_with(torch.inf), "3.weight"),
        (_with(torch.nan, "1.running_var"), "1.running_var"),
    ):
        with pytest.raises(ConfigError, match=rf"'{name}' has 1 NaN or infinite of \d+ entries"):
            pruned(network, method)


def _sparse() -> nn.Module:
    network = plain()
    network[6].weight = nn.Parameter(network[6].weight.detach().to_sparse())
    return network


def _empty() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 0), nn.Linear(0, 6))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_networks_and_losses_that_cannot_work_are_refused_in_one_line() -> None:
    quantised = torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear}, dtype=torch.qint8)
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(6))
    cases: list[tuple[str, nn.Module, dict[str, object]]] = [
        ("the network is TorchScript: prune the module that it was made from", torch.jit.trace(plain(), INPUTS), {}),
        ("module '6', a Linear, is quantised: prune the float network", quantised, {}),
        ("'0.weight' is on the meta device and has no values: load the weights first", plain().to("meta"), {}),
        ("'1.weight' has no shape yet: run the network on a batch first", lazy, {}),
        ("module '1', a Linear, has a weight of shape (0, 108), without entries", _empty(), {}),
        ("parameter '6.weight' is torch.sparse_coo, not a plain tensor", _sparse(), {}),
        ("the network fails on inputs of shape (2, 3, 6), torch.float32", plain(), {"example_input": INPUTS[:, :, 0]}),
        (
            "the loss returned a tensor of shape (6,), expected one number",
            plain(),
            {"loss": nn.CrossEntropyLoss(reduction="none")},
        ),
        ("the loss returned a float, expected a tensor", plain(), {"loss": lambda outputs, targets: 1.0}),
    ]
    for message, network, settings in cases:
        with pytest.raises(ConfigError) as caught:
            pruned(network, "SnipNet", **settings)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["FilterThresNet", "ALDSNet"])
def test_it_is_said_what_holds_the_parameters_that_cannot_be_pruned(method: str) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc, self.out = nn.GRUCell(36, 40), nn.Linear(40, 16), nn.Linear(16, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.relu(self.fc(self.rnn(x[:, 0].flatten(1)))))

    network = Recurrent()
    with pytest.warns(UserWarning, match=r"9\d% of the parameters are in GRUCell 'rnn', which is not pruned"):
        straight = pruned(network, method, 0.3)
    by_way = pruned(pruned(network, method, 0.5), method, 0.3)
    assert straight.warnings == by_way.warnings
    assert straight.size == by_way.size


def test_it_is_said_that_the_output_has_become_constant() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU(), nn.Linear(8, 6))
    with torch.no_grad():
        network[1].bias.fill_(-100)  # type: ignore[union-attr, operator]
        network[1].bias[0] = 0  # type: ignore[index]
        network[3].weight[:, 0] = 1e-3  # type: ignore[index]
    with pytest.warns(UserWarning, match="the output does not depend on the input"):
        result = pruned(network, "ThresNet", 0.05)
    with pytest.warns(UserWarning, match="the output does not depend on the input"):
        pruned(result, "ThresNet", 0.04)


def test_one_sample_shows_no_dependence() -> None:
    network = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(56, 8), nn.ReLU(), nn.Linear(8, 6))
    example = torch.arange(7)[None]
    first = api.prune(network, "ThresNet", 0.9, example_input=example)
    assert api.prune(first, "ThresNet", 0.8, example_input=example).warnings == first.warnings == []


@pytest.mark.parametrize(
    "ratio",
    [np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5), Fraction(1, 2), Decimal("0.5")],
    ids=lambda ratio: type(ratio).__name__,
)
def test_a_ratio_is_any_number(ratio: object) -> None:
    result = pruned(plain(), "ThresNet", ratio)
    assert result.target_keep_ratio == 0.5
    assert type(result.target_keep_ratio) is float


@pytest.mark.parametrize("ratio", [None, np.array([0.5, 0.5]), np.True_, torch.tensor(True), "0.5", 1j])
def test_anything_else_is_no_ratio(ratio: object) -> None:
    with pytest.raises(ConfigError, match=r"is outside \(0, 1\]"):
        pruned(plain(), "ThresNet", ratio)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_type_of_floats_is_pruned_in_its_own(dtype: torch.dtype) -> None:
    network = plain().to(dtype)
    for method in KINDS:
        result = pruned(network, method, 0.5, calibration=[(INPUTS.to(dtype), TARGETS)])
        assert {parameter.dtype for parameter in result.network.parameters()} == {dtype}
        assert result.keep_ratio == pytest.approx(0.5, abs=0.1), method


def test_a_parametrised_layer_separates_others_from_the_ends() -> None:
    """The layer behind it loses channels, and the one before it filters, as between plain layers."""
    torch.manual_seed(0)
    norm = torch.nn.utils.parametrizations.spectral_norm
    network = nn.Sequential(
        nn.Flatten(), norm(nn.Linear(108, 24)), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), norm(nn.Linear(24, 6))
    )
    for method, axis in (("ThiNet", 0), ("FilterThresNet", 1)):
        assert not bool(pruned(network, method, 0.9).masks["3.weight"].any(axis).all())


def test_the_reason_of_a_missed_ratio_is_the_reason() -> None:
    network = plain()
    at_a_third = pruned(network, "ThresNet", 0.3)
    with pytest.warns(UserWarning, match="keep ratio 0.5 is more than earlier steps have left; it stays at 0.3"):
        pruned(at_a_third, "ThresNet", 0.5)
    with pytest.raises(ConfigError, match="method: expected a name or a MethodRow, got a int"):
        pruned(network, 3, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="calibration: expected batches, got a int"):
        pruned(network, "SnipNet", 0.5, calibration=3)
    with pytest.raises(ConfigError, match=r"give a keep_ratio in \(0, 1\]"):
        api.prune(network, "ThresNet")


def test_attention_and_recurrent_layers_that_are_pruned_are_no_reason() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.GRUCell(36, 40), nn.Linear(40, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x[:, 0].flatten(1)))

    with pytest.warns(UserWarning, match="cannot be met") as caught:
        pruned(Recurrent(), "ThresNet", 0.001)
    assert "which is not pruned" in str(caught[0].message)  # its biases, and no more
    assert "100%" not in str(caught[0].message)
    with pytest.warns(UserWarning, match=r"9\d% of the parameters are in GRUCell 'rnn', which is not pruned"):
        pruned(Recurrent(), "FilterThresNet", 0.3)


@pytest.mark.parametrize("method", ["SiPPNet", "PFPNet"])
def test_images_whose_channels_are_last_in_memory_give_the_same_network(method):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(256, 6)).eval()
    images = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(3))  # 100 patches: as convolutions
    last = images.contiguous(memory_format=torch.channels_last)
    first, second = (pruned(network, method, calibration=[(x, TARGETS)]) for x in (images, last))
    assert first.masks.keys() == second.masks.keys()
    assert all(torch.equal(first.masks[name], second.masks[name]) for name in first.masks)


@pytest.mark.parametrize("method", ["ThresNet", "FilterThresNet", "PFPNet", "SVDNet"])
def test_outputs_whose_shapes_depend_on_the_weights_leave_propagation_out(method: str) -> None:
    class Detections(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))

        def forward(self, x: Tensor) -> Tensor:
            count = sum(int(value.count_nonzero()) for value in self.parameters())
            return self.body(x)[:, : 1 + count % 7]

    torch.manual_seed(0)
    network, x = Detections(), torch.randn(8, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        result = api.prune(network, method, 0.2, calibration=[(x, x)], loss=lambda outputs, _: outputs.sum())
    assert result.keep_ratio == pytest.approx(0.2, abs=0.05)
    assert method == "SVDNet" or any("only the selected units are pruned" in text for text in result.warnings)
