"""What a cut makes useless goes; what could still change an output stays, whatever the data say."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import registry
from luigi_prune.compute.pruning import count_size, prune
from luigi_prune.compute.pruning.problem.masks import Masks, initial_masks, zeros_as_masks
from luigi_prune.compute.pruning.structure.propagation import propagate
from luigi_prune.compute.pruning.structure.structure_probe import StructureProbe
from tests.compute.pruning.test_contract import MASKING, prune_like, trial_of
from tests.compute.pruning.zoo import ConvNet, images, trained_like


def propagated(network: nn.Module, x: Tensor, *, structured: bool = False) -> tuple[nn.Module, Masks]:
    """Return a propagated copy of `network` and its masks: weights that are zero count as removed."""
    with torch.no_grad():
        result = copy.deepcopy(network).eval()
        masks = initial_masks(result, zeros_as_masks(result))
        probe = StructureProbe(copy.deepcopy(network), x)
        propagate(result, masks, probe, x, structured=structured)
        return result, masks


def largest_change(one: nn.Module, other: nn.Module, inputs: Tensor) -> float:
    """Return the largest difference of outputs, relative to the largest output."""
    with torch.no_grad():
        left, right = one.eval()(inputs), other.eval()(inputs)
    return float((left - right).abs().max() / left.abs().max())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", ["convnet", "residual", "concat", "grouped", "shared", "sequence", "plain"])
@pytest.mark.parametrize("method", MASKING)
def test_propagation_moves_no_output(method: str, kind: str) -> None:
    trial = trial_of(method, kind)
    last = trial.levels.count - 1
    with torch.no_grad():
        assert all(trial.is_sound(level) for level in (last // 10, last // 3, 2 * last // 3))


def test_cut_filters_take_all_that_belongs_to_them() -> None:
    network, example = trained_like("convnet")
    pruned = prune_like(network, "FilterThresNet", 0.5, example)
    state = dict(pruned.network.named_parameters())
    alive = {i: (state[f"conv{i}.weight"] != 0).flatten(1).any(1) for i in (1, 2, 3)}
    kept = [1, *(int(alive[i].sum()) for i in (1, 2, 3))]
    assert kept[1] < 16
    # Weights, bias and two BatchNorm entries per filter; the linear layer reads the last convolution's filters.
    wanted = sum(9 * a * b + 3 * b for a, b in itertools.pairwise(kept)) + 10 * kept[3] + 10
    assert pruned.size == wanted
    for i in (1, 2, 3):
        norm = pruned.network.get_submodule(f"bn{i}")
        assert torch.equal(norm.get_parameter("weight") != 0, alive[i])
        assert torch.equal(norm.get_buffer("running_mean") != 0, alive[i])
    assert bool((state["fc.bias"] != 0).all())


def test_filters_on_a_residual_stream_keep_its_readers() -> None:
    """A channel of the sum stays alive as long as one summand writes it; the padded channels never had a first one."""
    network, example = trained_like("residual")
    pruned = prune_like(network, "FilterThresNet", 0.4, example).network
    writes = (pruned.stem.weight != 0).flatten(1).any(1) | (pruned.second[0].weight != 0).flatten(1).any(1)  # type: ignore[index, union-attr, operator]
    reads = (pruned.first[1].weight != 0).transpose(0, 1).flatten(1).any(1)  # type: ignore[index, union-attr, operator]
    assert 0 < int(writes.sum()) < 8
    assert torch.equal(writes, reads)
    assert int((pruned.fc.weight != 0).any(0).sum()) >= int((pruned.second[1].weight != 0).flatten(1).any(1).sum())  # type: ignore[index, union-attr, operator]


def test_a_norm_over_a_concatenation_is_cut_where_its_source_is() -> None:
    network, example = trained_like("concat")
    pruned = prune_like(network, "FilterThresNet", 0.5, example).network
    stem = (pruned.stem.weight != 0).flatten(1).any(1)  # type: ignore[union-attr, operator]
    assert 0 < int(stem.sum()) < 6
    for norm in pruned.norms:  # type: ignore[union-attr]
        assert not bool((norm.weight[:6] != 0)[~stem].any())  # type: ignore[index, operator, union-attr]


class ImageNorm(nn.LayerNorm):
    """Normalises the channels of every pixel, as in ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def test_the_channels_of_a_layer_norm_are_the_axis_whose_size_fits() -> None:
    body = [nn.Conv2d(3, 12, 3), ImageNorm(12), nn.GELU(), nn.Conv2d(12, 16, 3), nn.ReLU(), nn.Flatten()]
    network = nn.Sequential(*body, nn.Linear(256, 10))
    result = prune_like(network, "PFPNet", 0.4, images())
    assert not any("probed" in text or "propagation" in text for text in result.warnings)
    read = result.masks["3.weight"].flatten(2).any(2).any(0)
    assert 0 < int(read.sum()) < 12
    assert torch.equal(result.masks["1.weight"], read)


def test_never_the_network_s_inputs_nor_its_outputs() -> None:
    for kind in ("residual", "concat", "plain", "shared", "sequence"):
        network, example = trained_like(kind)
        for method in ("FilterThresNet", "FilterUniNet"):
            pruned = prune_like(network, method, 0.2, example).network
            weights = [module.weight for module in pruned.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
            assert bool((weights[-1] != 0).any(1).all()), (kind, method)
            if kind != "sequence":
                assert bool((weights[0] != 0).transpose(0, 1).flatten(1).any(1).all()), (kind, method)


def dead_unit(layer: nn.Module, unit: int, bias: float) -> None:
    """Leave nothing of a unit but its bias."""
    with torch.no_grad():
        layer.get_parameter("weight")[unit] = 0
        if layer.bias is not None:
            layer.get_parameter("bias")[unit] = bias


def test_a_constant_goes_into_the_next_bias() -> None:
    network = nn.Sequential(nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 3))
    dead_unit(network[0], 2, 0.7)
    result, masks = propagated(network, torch.randn(8, 5))
    assert not bool(masks["2.weight"][:, 2].any())
    assert not bool(masks["0.bias"][2])
    assert int((~masks["2.weight"]).sum()) == 3
    assert largest_change(network, result, torch.randn(50, 5)) < 1e-6


def test_a_constant_that_the_relu_kills_needs_no_bias() -> None:
    network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3, bias=False))
    dead_unit(network[0], 2, -0.7)
    result, masks = propagated(network, torch.randn(8, 5))
    assert not bool(masks["2.weight"][:, 2].any())
    assert largest_change(network, result, torch.randn(50, 5)) == 0
    dead_unit(network[0], 2, 0.7)
    result, masks = propagated(network, torch.randn(8, 5))
    assert bool(masks["2.weight"].all())  # nothing there can take a positive one
    assert bool(masks["0.bias"].all())


@pytest.mark.parametrize(("padding", "mode", "goes"), [(0, "zeros", True), (1, "zeros", False), (1, "circular", True)])
def test_zero_padding_keeps_a_constant(padding: int, mode: str, goes: bool) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=padding, padding_mode=mode), nn.ReLU()
    )
    dead_unit(network[0], 1, 0.5)
    result, masks = propagated(network, images())
    assert bool(masks["2.weight"][:, 1].any()) is not goes
    assert bool(masks["0.bias"][1]) is not goes
    assert largest_change(network, result, images(9)) < 1e-6


def test_a_constant_goes_into_the_running_mean_of_the_only_reader() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5))
    dead_unit(network[0], 1, 0.5)
    result, masks = propagated(network, images())
    assert not bool(masks["2.weight"][:, 1].any())
    assert bool((result[3].running_mean != network[3].running_mean).all())  # type: ignore[index]
    assert largest_change(network, result, images(9)) < 1e-6


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1, bias=False)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(F.relu(self.first(x)))
        return self.norm(x) + torch.tanh(x)


def test_a_running_mean_with_another_reader_beside_it_stays() -> None:
    network = TwoReaders()
    dead_unit(network.first, 1, 0.5)
    result, masks = propagated(network, images())
    assert bool(masks["second.weight"].all())
    assert largest_change(network, result, images(9)) == 0


def test_a_constant_batchnorm_channel_keeps_only_its_shift() -> None:
    network, x = trained_like("convnet")
    assert isinstance(network, ConvNet)
    dead_unit(network.conv1, 3, 0.4)
    with torch.no_grad():
        network.bn1.bias[3] = 2.0  # positive: the padded convolution behind it needs it
    result, masks = propagated(network, x)
    assert not bool(masks["conv1.bias"][3])
    assert not bool(masks["bn1.weight"][3])
    assert bool(masks["bn1.bias"][3])
    assert bool(masks["conv2.weight"].all())
    with torch.no_grad():
        network.bn1.bias[3] = -5.0  # the ReLU kills it: all goes
    result, masks = propagated(network, x)
    assert not bool(masks["bn1.bias"][3])
    assert not bool(masks["conv2.weight"][:, 3].any())
    assert largest_change(network, result, images(9)[:, :1]) < 1e-6


def test_what_is_dead_on_the_data_only_stays() -> None:
    network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        network[0].bias.fill_(-100.0)
    _, masks = propagated(network, torch.randn(8, 5))
    assert all(bool(mask.all()) for mask in masks.values())


class Detached(nn.Module):
    """Gradients stop half-way, as in a frozen backbone; a hard gate and a rounding follow."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.relu(self.backbone(x)).detach()
        return self.head(torch.round(4 * features).clamp(0, 3))


def test_stopped_gradients_and_flat_functions_do_not_look_dead() -> None:
    network = Detached()
    dead_unit(network.backbone, 1, 0.0)
    result, masks = propagated(network, torch.randn(8, 5))
    assert bool(masks["backbone.weight"][[0, 2, 3, 4, 5]].all())
    assert not bool(masks["head.weight"][:, 1].any())
    assert largest_change(network, result, torch.randn(50, 5)) == 0


class Routed(nn.Module):
    """The router decides by an index, of which no gradient and no probe can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(8, 4), nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        route = self.router(x).argmax(1)
        return self.experts(x).view(-1, 4, 3)[torch.arange(len(x)), route]


def test_a_network_that_defies_the_probe_is_only_cut() -> None:
    network, x = Routed(), torch.randn(16, 8)
    pruned = prune(
        network, registry.METHODS["ThresNet"], 0.8,
        example_input=x, calibration=None, loss=None, seed=0, original_size=count_size(network),
    )  # fmt: skip
    assert "only the selected units are pruned" in pruned.warnings[0]
    assert pruned.size == pytest.approx(0.8 * count_size(network), abs=1)
    assert bool((pruned.network.router.weight != 0).any())  # type: ignore[union-attr, operator]


def test_tied_weights_follow_all_their_readers() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
            self.middle = nn.Linear(6, 6)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.middle(self.embed(x).mean(1))))

    network, x = Tied(), torch.randint(0, 9, (4, 5))
    dead_unit(network.middle, 2, 0.0)
    result, masks = propagated(network, x)
    assert bool(masks["embed.weight"].all())  # the embedding still reads what the head does not
    assert largest_change(network, result, x) == 0


def test_half_precision_networks_are_pruned_alike() -> None:
    network, x = trained_like("convnet")
    whole = prune_like(network, "FilterThresNet", 0.5, x, calibration=None)
    half = prune_like(network.bfloat16(), "FilterThresNet", 0.5, x.bfloat16(), calibration=None)
    assert next(half.network.parameters()).dtype == torch.bfloat16
    assert half.size == pytest.approx(whole.size, rel=0.02)


def test_a_deep_network_does_not_fade_away() -> None:
    """Neither values nor gradients may underflow to zero, which would read as useless."""
    layers = [layer for _ in range(150) for layer in (nn.Linear(6, 6), nn.ReLU())]
    network = nn.Sequential(*layers, nn.Linear(6, 2))
    _, masks = propagated(network, torch.randn(4, 6))
    assert all(bool(mask.all()) for mask in masks.values())


def test_a_long_thin_path_counts() -> None:
    """One weight of many leads on, at every layer: the smallest of gradients, and no zero."""
    network = nn.Sequential(*(layer for _ in range(60) for layer in (nn.Linear(64, 64, bias=False), nn.ReLU())))
    with torch.no_grad():
        for linear in network[::2]:
            linear.weight[1:, 0] = 0
    before = initial_masks(network, zeros_as_masks(network))
    _, masks = propagated(network, torch.randn(4, 64))
    assert all(torch.equal(masks[name], mask) for name, mask in before.items())


class Growing(nn.Module):
    """Blocks that each make a thousand times more of their input."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(blocks))
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = 1000 * (x + F.relu(block(x)))
        return self.last(x)


@pytest.mark.parametrize(("blocks", "dtype"), [(5, torch.float32), (20, torch.float64)])
def test_numbers_too_large_for_single_precision_are_met_in_double(blocks: int, dtype: torch.dtype) -> None:
    network, x = Growing(blocks), torch.randn(3, 4)
    probe = StructureProbe(network, x)
    assert {parameter.dtype for parameter in probe.network.parameters()} == {dtype}
    with torch.no_grad():
        network.blocks[blocks // 2].weight[1] = 0
        network.blocks[blocks // 2].bias[1] = -1
    _, masks = propagated(network, x)
    # what computes a constant is replaced by it, nothing else is touched
    assert {name for name, mask in masks.items() if not bool(mask.all())} <= {
        f"blocks.{blocks // 2}.weight", f"blocks.{blocks // 2}.bias"
    }  # fmt: skip
