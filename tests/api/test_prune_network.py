"""`luigi_prune.api`: pruning any network, and properties of every registered method."""

from __future__ import annotations

import copy
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from luigi_prune import api
from luigi_prune.compute.pruning import count_flops, count_size
from luigi_prune.errors import ConfigError, DamagedResult
from luigi_prune.registry import METHODS
from luigi_prune.results.hdf5_file import write_result
from tests.compute.pruning.zoo import ZOO, trained_like

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be met on this network")
PRUNING = [name for name, row in METHODS.items() if row.granularity != "none"]
MASKING = [name for name in PRUNING if METHODS[name].granularity != "rank"]
ROOT = Path(__file__).parents[2]


def pruned_by(method: str, kind: str = "residual", ratio: float = 0.4, **settings: object) -> tuple[api.Pruned, Tensor]:
    """Return a network of the zoo pruned with two calibration batches, and a batch of inputs."""
    network, example = trained_like(kind)
    targets = torch.arange(len(example))
    given: dict[str, object] = {"calibration": [(example, targets), (example.flip(0), targets)]}
    return api.prune(network, method, ratio, **{**given, "loss": F.cross_entropy, **settings}), example  # type: ignore[arg-type]


def removed(network: nn.Module, masks: dict[str, Tensor]) -> Tensor:
    """Return all entries of `network` that `masks` removes, in one row."""
    parameters = dict(network.named_parameters())
    rows = [parameters[name].detach()[~mask.to(parameters[name].device)] for name, mask in masks.items()]
    return torch.cat(rows) if rows else torch.empty(0)


def nonzeros(network: nn.Module) -> int:
    """Return the number of parameters that are not zero."""
    return sum(int(parameter.count_nonzero()) for parameter in network.parameters())


def step(network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor) -> None:
    """Take one step towards targets that the network does not have."""
    network.train()
    optimizer.zero_grad()
    F.cross_entropy(network(inputs), torch.arange(len(inputs)) % 10).backward()
    optimizer.step()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, amsgrad=True),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.05),
}


# ------------------------------------------------------------------------------------------ what holds for every method


@pytest.mark.parametrize("method", PRUNING)
def test_zeros_stay_zero_while_it_trains(method: str) -> None:
    pruned, inputs = pruned_by(method)
    masks = pruned.masks
    assert masks or METHODS[method].granularity == "rank"
    before = pruned.network.state_dict()
    weight = next(name for name in before if name.endswith("weight"))
    first = before[weight].clone()
    for optimizer in (OPTIMIZERS["sgd"](pruned.network.parameters()), OPTIMIZERS["adam"](pruned.network.parameters())):
        for _ in range(2):
            step(pruned.network, optimizer, inputs)
            assert not removed(pruned.network, masks).count_nonzero()
    assert not torch.equal(pruned.network.state_dict()[weight], first)


@pytest.mark.parametrize("method", PRUNING)
def test_a_copy_is_a_network_of_its_own_and_holds_its_zeros(method: str) -> None:
    pruned, inputs = pruned_by(method)
    masks, state = pruned.masks, {name: value.clone() for name, value in pruned.network.state_dict().items()}
    twin = copy.deepcopy(pruned).network
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(pruned.network).eval()(inputs), pruned.network.eval()(inputs))
    step(twin, OPTIMIZERS["sgd"](twin.parameters()), inputs)
    assert not removed(twin, masks).count_nonzero()
    assert all(torch.equal(value, state[name]) for name, value in pruned.network.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_a_registered_row_prunes_and_reports_what_it_did(method: str) -> None:
    pruned, inputs = pruned_by(method, "convnet")
    network, _ = trained_like("convnet")
    assert pruned.original_size == count_size(network)
    assert pruned.original_flops == count_flops(network, inputs)
    assert pruned.method == method
    assert [layer.name for layer in pruned.layers] == ["conv1", "conv2", "conv3", "fc"]
    if METHODS[method].granularity == "none":
        assert pruned.keep_ratio == pytest.approx(0.4, abs=1e-3)
        return
    assert pruned.size == count_size(pruned.network, pruned.masks)
    # Weights drawn anew have zeros of their own: the biases of normalisations.
    assert pruned.size == nonzeros(pruned.network) or METHODS[method].reinitialised
    assert pruned.flops == count_flops(pruned.network, inputs, pruned.masks)
    assert pruned.keep_ratio == pruned.size / pruned.original_size < 1
    for layer in pruned.layers:
        weight = network.get_parameter(f"{layer.name}.weight")
        assert (layer.shape, layer.total) == (tuple(weight.shape), weight.numel())
        if layer.rank is None:
            assert layer.mask is not None
            assert torch.equal(layer.mask, pruned.network.get_parameter(f"{layer.name}.weight") != 0)
            assert layer.kept == int(layer.mask.sum())
        else:
            assert layer.mask is None
            assert layer.rank >= 1
            assert layer.groups is not None
            assert layer.groups >= 1
            assert layer.folding in (0, 1, 2, 3)


@pytest.mark.parametrize("method", PRUNING)
def test_a_cascade_is_relative_to_the_original_and_brings_nothing_back(method: str) -> None:
    network, inputs = trained_like("plain")
    batches = [(inputs, torch.arange(len(inputs)))]
    first = api.prune(network, method, 0.6, calibration=batches, loss=F.cross_entropy)
    step(first.network, OPTIMIZERS["sgd"](first.network.parameters()), inputs)
    second = api.prune(first, method, 0.3, calibration=batches, loss=F.cross_entropy)
    assert (second.original_size, second.original_flops) == (first.original_size, first.original_flops)
    assert second.size < first.size
    assert second.keep_ratio == second.size / count_size(network)
    if METHODS[method].granularity != "rank":
        assert not removed(second.network, first.masks).count_nonzero()
    step(second.network, OPTIMIZERS["adam"](second.network.parameters()), inputs)
    assert not removed(second.network, second.masks).count_nonzero()


LOAD = """
import sys, torch
from pathlib import Path
from luigi_prune import api
from tests.compute.pruning.zoo import trained_like
from tests.api.test_prune_network import OPTIMIZERS, removed, step
for file in sorted(Path(sys.argv[1]).glob("*.h5")):
    fresh, inputs = trained_like("residual", seed=5)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    pruned = api.load(file, fresh)
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())
    with torch.no_grad():
        outputs = pruned.network.eval()(inputs)
    step(pruned.network, OPTIMIZERS["adam"](pruned.network.parameters()), inputs)
    zeros = removed(pruned.network, pruned.masks)
    about = pruned.method, pruned.size, pruned.flops, pruned.keep_ratio
    print(file.stem, *about, len(zeros), int(zeros.count_nonzero()))
    print(outputs.numpy().tobytes().hex(), [(x.name, x.kept, x.total, x.rank) for x in pruned.layers])
"""


@pytest.mark.slow
def test_every_result_survives_its_file_in_a_fresh_process(tmp_path: Path) -> None:
    wanted = []
    for method in sorted(PRUNING):
        pruned, inputs = pruned_by(method)
        pruned.save(tmp_path / "new" / f"{method}.h5")
        with torch.no_grad():
            outputs = pruned.network.eval()(inputs)
        count = sum(int((~mask).sum()) for mask in pruned.masks.values())
        wanted.append(f"{method} {method} {pruned.size} {pruned.flops} {pruned.keep_ratio} {count} 0")
        layers = [(layer.name, layer.kept, layer.total, layer.rank) for layer in pruned.layers]
        wanted.append(f"{outputs.numpy().tobytes().hex()} {layers}")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "new")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == wanted, done.stderr


# -------------------------------------------------------------------------------------------- how zeros are held


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_any_optimizer_leaves_zeros_alone(optimizer: str) -> None:
    pruned, inputs = pruned_by("ThresNet")
    made = OPTIMIZERS[optimizer](pruned.network.parameters())
    for _ in range(3):
        step(pruned.network, made, inputs)
        assert not removed(pruned.network, pruned.masks).count_nonzero()
    kept = [p.detach()[p.detach() != 0].numel() for p in pruned.network.parameters()]
    assert sum(kept) == pruned.size


class Mixing(torch.optim.Optimizer):
    """Moves every entry of a parameter, as optimizers do that mix the entries of a matrix."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.sub_(0.1 + parameter.grad.mean())


def test_an_optimizer_that_moves_every_entry_leaves_zeros_too() -> None:
    pruned, inputs = pruned_by("FilterThresNet")
    twin = copy.deepcopy(pruned.network)
    for network in (pruned.network, twin):
        step(network, Mixing(network.parameters(), {}), inputs)
        assert not removed(network, pruned.masks).count_nonzero()


def test_a_loop_without_optimizer_finds_zeros_at_the_next_pass() -> None:
    pruned, inputs = pruned_by("ThresNet")
    with torch.no_grad():
        for parameter in pruned.network.parameters():
            parameter.add_(0.5)
    pruned.network.train()(inputs)
    assert not removed(pruned.network, pruned.masks).count_nonzero()


def test_mixed_precision_holds_zeros() -> None:
    pruned, inputs = pruned_by("ThresNet")
    optimizer = OPTIMIZERS["adam"](pruned.network.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(pruned.network.train()(inputs), torch.arange(4))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert not removed(pruned.network, pruned.masks).count_nonzero()


def trained_by_two(rank: int, place: str) -> list[str]:
    """Train as one of two processes; return the numbers of removed entries and of those not zero, and all's sum."""
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    try:
        network, inputs = trained_like("residual")
        pruned = api.prune(network, "ThresNet", 0.4, example_input=inputs)
        parallel = nn.parallel.DistributedDataParallel(pruned.network)
        optimizer = OPTIMIZERS["sgd"](parallel.parameters())
        for _ in range(3):
            step(parallel, optimizer, inputs[2 * rank : 2 * rank + 2])
        zeros = removed(pruned.network, pruned.masks)
        total = float(sum(p.detach().double().sum() for p in pruned.network.parameters()))
        return [str(len(zeros)), str(int(zeros.count_nonzero())), repr(total)]
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_hold_the_same_zeros(tmp_path: Path) -> None:
    """This process is the first of them: importing torch takes longer than all else."""
    code = f"from {__name__} import trained_by_two; print(*trained_by_two(1, {str(tmp_path / 'meet')!r}))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
        one = trained_by_two(0, str(tmp_path / "meet"))
        other = process.communicate(timeout=120)[0].split()
    assert int(one[0]) > 0
    assert int(one[1]) == 0
    assert one == other


def test_state_dicts_fit_the_unpruned_network_and_back(tmp_path: Path) -> None:
    pruned, inputs = pruned_by("FilterThresNet")
    dense, _ = trained_like("residual", seed=3)
    assert list(pruned.network.state_dict()) == list(dense.state_dict())
    torch.save(pruned.network.state_dict(), tmp_path / "state.pt")
    pruned.network.load_state_dict(dense.state_dict())
    assert not removed(pruned.network, pruned.masks).count_nonzero()
    assert torch.equal(pruned.network.get_parameter("fc.bias"), dense.get_parameter("fc.bias"))
    pruned.network.load_state_dict({k: v.clone() for k, v in dense.state_dict().items()}, assign=True)
    assert not removed(pruned.network, pruned.masks).count_nonzero()
    step(pruned.network, OPTIMIZERS["sgd"](pruned.network.parameters()), inputs)
    assert not removed(pruned.network, pruned.masks).count_nonzero()
    dense.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert not removed(dense, pruned.masks).count_nonzero()


def test_another_type_and_an_unfrozen_layer_are_held() -> None:
    network, inputs = trained_like("residual")
    network.requires_grad_(False)
    pruned = api.prune(network, "ThresNet", 0.3, example_input=inputs)
    assert not any(parameter.requires_grad for parameter in pruned.network.parameters())
    twin = pruned.network.double().requires_grad_(True)
    step(twin, OPTIMIZERS["sgd"](twin.parameters()), inputs.double())
    assert not removed(twin, pruned.masks).count_nonzero()
    for name, mask in pruned.masks.items():
        gradient = twin.get_parameter(name).grad
        assert gradient is not None
        assert not gradient[~mask].any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_moves_between_devices() -> None:
    pruned, inputs = pruned_by("ThresNet")
    masks = {name: mask.cpu() for name, mask in pruned.masks.items()}
    for device in ("cuda", "cpu"):
        pruned.network.to(device).train()
        optimizer = OPTIMIZERS["adam"](pruned.network.parameters())
        F.cross_entropy(pruned.network(inputs.to(device)), torch.arange(4, device=device)).backward()
        optimizer.step()
        assert not removed(pruned.network, masks).count_nonzero()


def test_a_released_network_is_an_ordinary_one() -> None:
    pruned, inputs = pruned_by("ThresNet")
    plain = api.release(copy.deepcopy(pruned.network))
    step(plain, OPTIMIZERS["sgd"](plain.parameters()), inputs)
    assert removed(plain, pruned.masks).count_nonzero()
    assert all(not module._forward_pre_hooks for module in plain.modules())
    step(pruned.network, OPTIMIZERS["sgd"](pruned.network.parameters()), inputs)
    assert not removed(pruned.network, pruned.masks).count_nonzero()


def test_a_tied_weight_and_a_replaced_layer() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    network[2].weight = network[0].weight
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    pruned = copy.deepcopy(api.prune(network, "ThresNet", 0.5, example_input=inputs))
    assert pruned.network[2].weight is pruned.network[0].weight  # type: ignore[index]
    step(pruned.network, OPTIMIZERS["adam"](pruned.network.parameters()), inputs)
    assert not removed(pruned.network, pruned.masks).count_nonzero()
    pruned.network[4] = nn.Linear(8, 10)  # type: ignore[operator]
    step(pruned.network, OPTIMIZERS["adam"](pruned.network.parameters()), inputs)
    assert pruned.network[4].weight.all()  # type: ignore[index]


# ------------------------------------------------------------------------------------------------ what may be left out


@pytest.mark.parametrize("kind", ZOO)
def test_without_any_input_the_same_is_pruned_and_flops_are_unknown(kind: str) -> None:
    network, inputs = trained_like(kind)
    blind, seeing = api.prune(network, "WT", 0.4), api.prune(network, "WT", 0.4, example_input=inputs)
    assert (blind.flops, blind.original_flops) == (None, None)
    assert blind.size == seeing.size
    assert all(torch.equal(mask, seeing.masks[name]) for name, mask in blind.masks.items())
    later = api.prune(blind, "WT", 0.2, example_input=inputs)
    assert later.flops == count_flops(later.network, inputs, later.masks)
    assert later.original_flops is None


def test_without_any_input_a_network_that_none_fits_is_refused() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.reshape(-1, 3, 4, 5)[..., 0].flatten(1))

    with pytest.raises(ConfigError, match="pass example_input"):
        api.prune(Picky(), "WT", 0.5)
    assert api.prune(Picky(), "WT", 0.5, example_input=torch.randn(2, 60)).size == 13


def test_a_loss_is_asked_for_only_where_it_is_used() -> None:
    assert pruned_by("SiPPNet", loss=None)[0].size < 5000
    with pytest.raises(ConfigError, match="SnipNet needs a loss, but none is given"):
        pruned_by("SnipNet", loss=None)
    with pytest.raises(ConfigError, match="ThresNet with rules='reference' needs a loss"):
        pruned_by("ThresNet", loss=None, rules="reference")
    with pytest.raises(ConfigError, match="SiPPNet needs calibration data"):
        pruned_by("SiPPNet", calibration=None)
    with pytest.raises(ConfigError, match="SiPPNet needs calibration data"):
        pruned_by("SiPPNet", calibration=[])


def test_calibration_may_be_a_loader_and_a_row_ones_own() -> None:
    network, inputs = trained_like("mlp")
    targets = torch.arange(len(inputs))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, targets), batch_size=3)
    one = api.prune(network, "SiPPNet", 0.5, calibration=loader)
    other = api.prune(
        network, METHODS["SiPPNet"], 0.5, calibration=[(inputs[:3], targets[:3]), (inputs[3:], targets[3:])]
    )
    assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())


def test_ignored_layers_stay_as_they_are_through_a_cascade() -> None:
    network, inputs = trained_like("residual")
    name = api.prune(network, "WT", 0.5).layers[2].name
    before = {key: value.clone() for key, value in network.get_submodule(name).state_dict().items()}
    pruned = api.prune(network, "FilterThresNet", 0.7, example_input=inputs, ignore=[name])
    pruned = api.prune(pruned, "ALDSNet", 0.5, example_input=inputs, ignore=[name])
    assert all(
        torch.equal(value, before[key]) for key, value in pruned.network.get_submodule(name).state_dict().items()
    )
    assert next(layer for layer in pruned.layers if layer.name == name).rank is None
    assert pruned.keep_ratio == pytest.approx(0.5, rel=0.02)  # ranks of so small a network leave gaps


def test_only_three_arguments_have_places() -> None:
    network, inputs = trained_like("mlp")
    with pytest.raises(TypeError, match="positional"):
        api.prune(network, "WT", 0.5, [(inputs, torch.arange(len(inputs)))])  # type: ignore[misc]


# ---------------------------------------------------------------------------------------------------------- complaints


def test_what_cannot_be_met_is_the_closest_with_a_warning_that_says_both() -> None:
    network, inputs = trained_like("plain")
    with pytest.warns(UserWarning, match="keep ratio 0.001 cannot be met") as caught:
        pruned = api.prune(network, "FilterThresNet", 0.001, example_input=inputs)
    (warning,) = caught
    assert f"the closest is {pruned.keep_ratio:.4g}" in str(warning.message)
    assert warning.filename == __file__
    assert pruned.warnings == [str(warning.message)]
    assert pruned.target_keep_ratio == 0.001


def test_a_log_level_silences_no_warning() -> None:
    network, inputs = trained_like("plain")
    log = logging.getLogger("luigi_prune")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with pytest.warns(UserWarning, match="keep ratio 0.001 cannot be met"):
            api.prune(network, "FilterThresNet", 0.001, example_input=inputs)
    finally:
        log.setLevel(before)


@pytest.mark.parametrize("ratio", [0, -1, 1.5, float("nan"), True, "half"])
def test_a_ratio_outside_zero_to_one_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match=r"is outside \(0, 1\]"):
        pruned_by("ThresNet", ratio=ratio)


def test_complaints_are_one_line_and_name_the_matter() -> None:
    network, inputs = trained_like("mlp")
    targets, broken = torch.arange(4), inputs.clone()
    broken[1, 3] = torch.nan
    flat: list[object] = [inputs]
    cases: list[tuple[str, object, dict[str, object]]] = [
        ("did you mean 'SiPPNet'?", network, {"method": "SiPPet"}),
        ("no compressible layer", nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), {}),
        ("no compressible layer (linear, ", nn.LSTM(64, 4), {"method": "FilterThresNet"}),
        ("expected a torch.nn.Module, got a str", "resnet20", {}),
        ("calibration batch 1 has NaN", network, {"calibration": [(inputs, targets), (broken, targets)]}),
        ("calibration batch 0 is not a pair", network, {"calibration": flat}),
        ("4 inputs but targets of shape (3,)", network, {"calibration": [(inputs, targets[:3])]}),
        ("batch 0 has no samples", network, {"calibration": [(inputs[:0], targets[:0])]}),
        ("example input has NaN", network, {"example_input": broken}),
        ("rules 'papers'", network, {"rules": "papers"}),
    ]
    for message, given, settings in cases:
        arguments: dict[str, object] = {"method": "ThresNet", "keep_ratio": 0.5, "example_input": inputs, **settings}
        with pytest.raises(ConfigError) as caught:
            api.prune(given, **arguments)  # type: ignore[arg-type]
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_files_are_checked_and_never_overwritten(tmp_path: Path) -> None:
    pruned, _ = pruned_by("ThresNet")
    file = tmp_path / "pruned.h5"
    pruned.save(file)
    pruned.save(file)  # the same content: nothing to do
    with pytest.raises(ConfigError, match="never overwritten"):
        pruned_by("ThresNet", ratio=0.3)[0].save(file)
    other, _ = trained_like("convnet")
    with pytest.raises(ConfigError, match="does not match the pruned one: ") as caught:
        api.load(file, other)
    assert "\n" not in str(caught.value)
    network, _ = trained_like("residual")
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    (tmp_path / "flipped.h5").write_bytes(content)
    with pytest.raises(DamagedResult):
        api.load(tmp_path / "flipped.h5", network)
    with pytest.raises(FileNotFoundError):
        api.load(tmp_path / "absent.h5", network)
    write_result(tmp_path / "other.h5", family="Prune", key="0", spec={}, provenance={}, arrays={})
    with pytest.raises(ConfigError, match="got a 'Prune' result"):
        api.load(tmp_path / "other.h5", network)


def test_a_loaded_network_goes_on_with_the_cascade(tmp_path: Path) -> None:
    pruned, inputs = pruned_by("ThresNet", ratio=0.6)
    pruned.save(tmp_path / "pruned.h5")
    fresh, _ = trained_like("residual", seed=9)
    loaded = api.load(tmp_path / "pruned.h5", fresh)
    one, other = (api.prune(start, "ThresNet", 0.2, example_input=inputs) for start in (pruned, loaded))
    assert one.original_size == other.original_size == count_size(trained_like("residual")[0])
    assert all(torch.equal(value, other.network.state_dict()[name]) for name, value in one.network.state_dict().items())


def test_a_method_that_begins_with_the_original_asks_for_it(tmp_path: Path) -> None:
    """A file, or another method's result, does not hold the network before any pruning; it can be given."""
    network, example = trained_like("convnet")
    straight = api.prune(network, "ALDSNetOne", 0.3, example_input=example)
    first = api.prune(network, "ALDSNetOne", 0.6, example_input=example)
    first.save(tmp_path / "first.h5")
    loaded = api.load(tmp_path / "first.h5", trained_like("convnet", seed=9)[0])
    other = api.prune(network, "ThresNet", 0.6, example_input=example)
    for start in (loaded, other):
        with pytest.raises(ConfigError, match=r"ALDSNetOne starts every step from the original network.*`original`"):
            api.prune(start, "ALDSNetOne", 0.3, example_input=example)
        with pytest.raises(ConfigError, match=r"`original` has .* but the original of the pruned network had"):
            api.prune(start, "ALDSNetOne", 0.3, example_input=example, original=trained_like("mlp")[0])
    results = [api.prune(first, "ALDSNetOne", 0.3, example_input=example)]
    results += [
        api.prune(start, "ALDSNetOne", 0.3, example_input=example, original=network) for start in (loaded, other)
    ]
    for result in results:
        state = result.network.state_dict()
        assert result.structure == straight.structure
        assert all(torch.equal(value, state[name]) for name, value in straight.network.state_dict().items())


def test_methods_lists_the_registry() -> None:
    rows = {row.name: row for row in api.methods()}
    assert list(rows) == list(METHODS)
    assert rows["SiPPNet"].needs_data
    assert not rows["SiPPNet"].randomised
    assert all(row.summary and "\n" not in row.summary for row in rows.values())


def test_a_layer_that_pays_for_ignored_ones_is_named() -> None:
    network = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    with pytest.warns(UserWarning, match="because the layers to ignore keep their size, at most one filter of '0' is"):
        pruned = api.prune(network, "FilterThresNet", 0.725, example_input=torch.randn(4, 16), ignore=["2"])
    assert int(pruned.masks["0.weight"].any(1).sum()) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api.prune(network, "FilterThresNet", 0.8, example_input=torch.randn(4, 16), ignore=["2"])
    assert not any("to ignore" in str(each.message) for each in caught)
