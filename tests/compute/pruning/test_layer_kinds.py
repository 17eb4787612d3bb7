"""Every method on layers of every kind: right values, or a line that names the layers that stay as they are."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from luigi_prune import registry
from luigi_prune.compute.pruning import count_flops, count_products, count_size, layer_budgets, restore
from luigi_prune.compute.pruning.engine.rules import PAPER
from luigi_prune.compute.pruning.problem.equivalents import Equivalent
from luigi_prune.compute.pruning.problem.layers import find_layers
from luigi_prune.compute.pruning.problem.masks import initial_masks
from luigi_prune.compute.pruning.problem.records import Problem
from luigi_prune.compute.pruning.problem.weight_matrices import in_layers, layer_masks
from luigi_prune.compute.pruning.scores import SCORES
from luigi_prune.compute.pruning.torchprune.gradient_propagation import REFERENCE
from luigi_prune.errors import ConfigError
from tests.compute.pruning.kinds_of_layers import (
    KINDS,
    Encoder,
    SameConv,
    network_of_kind,
    noise,
    seasoned,
)
from tests.compute.pruning.test_contract import METHODS, prune_like

EVERY_SCORE = ("ThresNet", "SnipNet", "SiPPNet", "FilterThresNet", "PFPNet", "ThiNet", "ALDSNet", "PCANet", "MessiNet")


@pytest.mark.parametrize(
    ("method", "kind"),
    [(method, kind) for kind in KINDS for method in (METHODS if kind == "encoder" else EVERY_SCORE)],
)
def test_every_method_prunes_every_kind_and_the_record_agrees(method: str, kind: str) -> None:
    network, example = network_of_kind(kind)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pruned = prune_like(network, method, 0.6, example)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert pruned.size == count_size(pruned.network, pruned.masks)
    assert pruned.size < count_size(network) or "the closest is 1" in str(pruned.warnings)
    assert pruned.flops == count_flops(pruned.network, example, pruned.masks)
    assert pruned.original_flops == count_flops(network, example)
    assert pruned.layers == layer_budgets(pruned.network, pruned.masks)
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in layer_budgets(network)]
    assert any("0.6 cannot be met" in line for line in pruned.warnings) == (
        abs(pruned.size / count_size(network) - 0.6) > 0.003
    )
    fresh = restore(network_of_kind(kind)[0], pruned.structure)
    fresh.load_state_dict(pruned.network.state_dict())
    with torch.no_grad():
        outputs = pruned.network(example)
        assert bool(torch.isfinite(outputs).all())
        torch.testing.assert_close(fresh(example), outputs)
    if not pruned.structure:
        assert list(pruned.network.state_dict()) == list(before)
        assert not any(isinstance(module, Equivalent) for module in pruned.network.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_weight_methods_prune_every_weight_matrix(kind: str) -> None:
    network, example = network_of_kind(kind)
    pruned = prune_like(network, "UniNet", 0.5, example)
    assert all(0.2 < layer.kept / layer.total < 0.8 for layer in pruned.layers if layer.total > 30)
    inside = sum(layer.total for layer in pruned.layers)
    outside = sum(p.numel() for p in network.parameters() if p.dim() == 1)
    embeddings = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Embedding))
    special = sum(p.numel() for n, p in network.named_parameters() if n in ("class_token", "encoder.pos_embedding"))
    assert inside + outside + embeddings + special == sum(p.numel() for p in network.parameters())


class ProjectedAttention(nn.Module):
    """Attention written out over four linear layers."""

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        weights, biases = packed.in_proj_weight.detach().chunk(3), packed.in_proj_bias.detach().chunk(3)
        for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
            self.add_module(name, linear(weight, bias))
        self.out_proj = linear(packed.out_proj.weight.detach(), packed.out_proj.bias.detach())

    def forward(self, x: Tensor, *_: Tensor, **__: object) -> tuple[Tensor]:
        q, k, v = (self.get_submodule(name)(x).unflatten(-1, (2, 4)).transpose(1, 2)
                   for name in ("q_proj", "k_proj", "v_proj"))  # fmt: skip
        return (self.out_proj((torch.softmax(q @ k.mT / 2, -1) @ v).transpose(1, 2).flatten(2)),)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


class OneBlock(nn.Module):
    """Linear, attention with a residual, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, packed = nn.Linear(6, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 10)
        self.attention: nn.Module = packed

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(F.relu(x + self.attention(x, x, x)[0]).mean(1))


@pytest.mark.parametrize(
    "method", [name for name in METHODS if registry.METHODS[name].granularity in ("weight", "rank")]
)
def test_attention_is_pruned_as_its_projections_written_out(method: str) -> None:
    packed, example = seasoned(OneBlock), noise(6, 5, 6)
    written = copy.deepcopy(packed)
    written.attention = ProjectedAttention(packed.get_submodule("attention"))  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(packed(example), written(example))
    one, other = (prune_like(network, method, 0.6, example) for network in (packed, written))
    assert (one.size, one.flops, one.original_flops) == (other.size, other.flops, other.original_flops)
    assert one.layers == other.layers
    assert [entry["rank"] for entry in one.structure] == [entry["rank"] for entry in other.structure]
    by_layer, expected = layer_masks(one.network, one.masks), layer_masks(other.network, other.masks)
    for name in by_layer.keys() | expected.keys():
        whole = torch.ones_like(by_layer[name] if name in by_layer else expected[name])
        assert torch.equal(by_layer.get(name, whole), expected.get(name, whole)), name
    if registry.METHODS[method].reinitialised:
        return  # torch initialises a packed projection by its own rule
    with torch.no_grad():
        torch.testing.assert_close(one.network(example), other.network(example), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [m for m in METHODS if registry.METHODS[m].granularity in ("filter", "channel")])
def test_filters_and_channels_of_attention_are_heads(method: str) -> None:
    def four_heads() -> nn.Module:
        network = OneBlock()
        network.attention = nn.MultiheadAttention(8, 4, batch_first=True)
        return network

    network, example, removed = seasoned(four_heads), noise(6, 5, 6), 0
    for ratio in (0.7, 0.5):
        pruned = prune_like(network, method, ratio, example)
        masks = layer_masks(pruned.network, pruned.masks)
        q, k, v, output = (
            masks.get(f"attention.{name}", torch.ones(8, 8, dtype=torch.bool))
            for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        )
        heads = v.unflatten(0, (4, 2)).any(2)
        assert torch.equal(heads.any(1), heads.all(1))
        heads = heads.any(1)
        removed += int((~heads).sum())
        assert torch.equal(output.unflatten(1, (4, 2)).any(2).any(0), heads)
        for mask in (q, k, v):
            assert torch.equal(mask.unflatten(0, (4, 2)).any(2).any(1), heads)
    assert removed


def scores_of(network: nn.Module, example: Tensor, score: str) -> dict[str, Tensor]:
    """Return the scores by layer."""
    network, _ = in_layers(network)
    units = "channel" if score.startswith("channel") else "weight"
    with torch.no_grad():
        layers = find_layers(network, example, PAPER.find_ends, granularity=units)
        problem = Problem(
            network, layers, initial_masks(network, None), {}, example, [(example, example)], None, 0, PAPER
        )
        return {layer.name: each for layer, each in zip(layers, SCORES[score](problem), strict=True)}


class ByGroups(nn.Module):
    """A grouped convolution as one convolution per group."""

    def __init__(self, grouped: nn.Conv2d) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        for weight in grouped.weight.detach().chunk(grouped.groups):
            part = nn.Conv2d(weight.shape[1], len(weight), 3, 2, 1, bias=False)
            part.load_state_dict({"weight": weight})
            self.parts.append(part)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(each) for part, each in zip(self.parts, x.chunk(len(self.parts), 1), strict=True)], 1)


class Spread(nn.Module):
    """A transposed convolution of kernel 3, stride 2, padding 1 as a convolution of inputs with zeros in between."""

    def __init__(self, up: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(up.in_channels, up.out_channels, 3, bias=False)
        self.conv.load_state_dict({"weight": up.weight.detach().transpose(0, 1).flip(2, 3)})

    def forward(self, x: Tensor) -> Tensor:
        spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2] - 1, 2 * x.shape[3] - 1)
        spread[:, :, ::2, ::2] = x
        return self.conv(F.pad(spread, (1, 1, 1, 1)))


@pytest.mark.parametrize("score", ["weight_sensitivity", "weight_sensitivity_max", "channel_sensitivity"])
def test_sensitivities_of_other_convolutions_are_those_of_plain_ones(score: str) -> None:
    grouped, up = nn.Conv2d(6, 8, 3, 2, 1, groups=2, bias=False), nn.ConvTranspose2d(4, 5, 3, 2, 1, bias=False)
    line, volume = nn.Conv1d(3, 4, 3, 2, 1, dilation=2), nn.Conv3d(3, 4, (3, 3, 1), padding=(1, 1, 0))
    line_as_image, volume_as_image = nn.Conv2d(3, 4, (1, 3), (1, 2), (0, 1), (1, 2)), nn.Conv2d(3, 4, 3, padding=1)
    line_as_image.load_state_dict({"weight": line.weight[:, :, None], "bias": line.bias})
    volume_as_image.load_state_dict({"weight": volume.weight[..., 0], "bias": volume.bias})
    images = noise(3, 6, 5, 5)
    found = scores_of(copy.deepcopy(up), images[:, :4], score)[""]
    expected = scores_of(Spread(up), images[:, :4], score)["conv"]
    torch.testing.assert_close(found, expected.flip(2, 3) if expected.dim() > 1 else expected)
    for other, plain, inputs, axis in (
        (line, line_as_image, noise(3, 3, 9), 2),
        (volume, volume_as_image, noise(3, 3, 5, 5), 4),
    ):
        found, expected = (
            scores_of(other, inputs if axis == 2 else inputs[..., None], score),
            scores_of(plain, inputs.unsqueeze(2) if axis == 2 else inputs, score),
        )
        torch.testing.assert_close(found[""], expected[""].view(found[""].shape))
    parts = scores_of(ByGroups(grouped), images, score)
    torch.testing.assert_close(scores_of(grouped, images, score)[""], torch.cat(list(parts.values())))


class Groups(nn.Module):
    """A plain, a grouped and a depthwise convolution, and a grouped one with two filters for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 16, 3, groups=4)
        self.depthwise, self.norm = nn.Conv2d(16, 16, 3, groups=16, bias=False), nn.BatchNorm2d(16)
        self.more, self.head = nn.Conv2d(16, 32, 1, groups=16), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.depthwise(F.relu(self.grouped(F.relu(self.stem(x))))))
        return self.head(self.more(F.relu(x)).mean((2, 3)))


@pytest.mark.parametrize("method", ["FilterThresNet", "FilterUniNet", "ThiNet", "PFPNet", "PFPNetRand"])
def test_units_of_grouped_convolutions_are_whole_and_separate_in_every_group(method: str) -> None:
    network, example = seasoned(Groups), noise(4, 3, 9, 9)
    pruned = prune_like(network, method, 0.5, example)
    assert abs(pruned.size / count_size(network) - 0.5) < 0.04
    kept = {name: mask.flatten(2).any(2) for name, mask in pruned.masks.items() if mask.dim() == 4}
    of_groups = kept["grouped.weight"].unflatten(0, (4, 4))  # (groups, filters, channels)
    filters, channels = of_groups.any(2), of_groups.any(1)
    assert torch.equal(of_groups, filters[:, :, None] & channels[:, None])
    assert 0 < int(filters.sum()) < 16
    assert len({tuple(row.tolist()) for row in channels}) > 1  # each group keeps channels of its own
    assert torch.equal(kept["stem.weight"].any(1), channels.flatten())
    assert torch.equal(kept["depthwise.weight"].any(1), filters.flatten())
    for name, parameter in pruned.network.named_parameters():
        assert not bool(parameter[~pruned.masks[name]].any() if name in pruned.masks else False)
    with pytest.raises(ConfigError, match="no compressible layer"):
        prune_like(
            nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten()), method, 0.5, noise(4, 4, 9, 9), rules=REFERENCE
        )


def test_sensitivities_of_recurrence_and_products_are_shares_of_their_sums() -> None:
    cell, inputs = nn.RNN(3, 4, batch_first=True, bias=False, nonlinearity="relu"), noise(1, 5, 3)
    nn.init.uniform_(cell.weight_hh_l0, 0.1, 1.0)
    states = torch.cat([torch.zeros(1, 1, 4), cell(inputs)[0][:, :-1]], 1).detach()
    products = cell.weight_hh_l0.detach() * states[0][:, None]  # (steps, filters, entries), none negative
    share = (products / products.sum(2, keepdim=True)).nan_to_num(0).amax(0)
    torch.testing.assert_close(scores_of(cell, inputs, "weight_sensitivity")["hh_l0"], share)
    network = nn.Bilinear(3, 2, 4, bias=False)
    nn.init.uniform_(network.weight, 0.1, 1.0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = network

        def forward(self, x: Tensor) -> Tensor:
            return self.both(x, x[:, :2])

    value = noise(5, 3).abs()
    products = network.weight.detach() * torch.einsum("ni,nj->nij", value, value[:, :2])[:, None]
    share = (products / products.sum((2, 3), keepdim=True)).amax(0)
    torch.testing.assert_close(scores_of(Twice(), value, "weight_sensitivity")["both"], share)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("lstm", "gru", "pair")])
def test_flops_are_those_of_torch(kind: str) -> None:
    network, example = network_of_kind(kind)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            network(example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    products = count_products(network, example)
    assert (products > 0) == (kind in ("encoder", "vit", "decoder"))
    assert 2 * len(example) * (count_flops(network, example) + products) == counter.get_total_flops()


def test_flops_of_recurrent_and_bilinear_layers() -> None:
    network, example = network_of_kind("lstm")
    recurrent = 7 * sum(p.numel() for n, p in network.named_parameters() if "weight_" in n)
    assert count_flops(network, example) == recurrent + 16 * 10
    network, example = network_of_kind("pair")
    assert count_flops(network, example) == 8 * 6 + 8 * 5 + 6 * 5 * 12 + 12 * 10


@pytest.mark.parametrize("method", [name for name in METHODS if registry.METHODS[name].granularity == "rank"])
def test_rank_methods_leave_layers_with_a_forward_of_their_own(method: str) -> None:
    network, example = network_of_kind("own forward")
    network.get_submodule("head").register_forward_hook(lambda module, inputs, output: output * 2)
    pruned = prune_like(network, method, 0.5, example)
    assert [entry["layer"] for entry in pruned.structure] == ["plain"]
    (line,) = (line for line in pruned.warnings if "forward" in line)
    for name in (
        "'same' (SameConv)",
        "'standardised' (StandardisedConv)",
        "'quantised'",
        "'scaled'",
        "'head' (Linear)",
    ):
        assert name in line


@pytest.mark.parametrize("method", [m for m in EVERY_SCORE if registry.METHODS[m].granularity != "rank"])
def test_masks_hold_in_layers_with_a_forward_of_their_own(method: str) -> None:
    network, example = network_of_kind("own forward")
    pruned = prune_like(network, method, 0.6, example)
    assert {type(m) for m in pruned.network.modules()} == {type(m) for m in network.modules()}
    masks = [f"{name}.weight" for name in ("same", "standardised", "quantised", "scaled")]
    assert len(set(masks) & set(pruned.masks)) >= 3  # the first may be fixed
    assert not any(bool(pruned.network.get_parameter(name)[~pruned.masks[name]].any()) for name in masks[1:])
    manual = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in manual.named_parameters():
            parameter.mul_(pruned.masks.get(name, torch.ones_like(parameter)))
        if "would change" in str(pruned.warnings) or registry.METHODS[method].granularity == "weight":
            torch.testing.assert_close(manual(example), pruned.network(example))


@pytest.mark.parametrize("score", ["weight_sensitivity", "channel_sensitivity", "greedy_rank"])
def test_a_convolution_that_pads_itself_is_scored_on_its_padded_input(score: str) -> None:
    for size, pads in ((6, (0, 1, 0, 1)), (1, (1, 1, 1, 1)), (7, (1, 1, 1, 1))):
        own, plain = SameConv(3, 4, 3, stride=2), nn.Conv2d(3, 4, 3, stride=2)
        plain.load_state_dict(own.state_dict())
        images = noise(3, 3, size, size)
        found = scores_of(nn.Sequential(own), images, score)["0"]
        padded = nn.Sequential(nn.ZeroPad2d(pads), plain)
        generator_name = "1" if score != "greedy_rank" else None
        if generator_name:
            torch.testing.assert_close(found, scores_of(padded, images, score)[generator_name])
        assert sorted(found.flatten().tolist())[-1] > 0


class Listed(nn.Module):
    """Layers that are called from a plain list, too, where a replacement would not reach them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(6, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.middle, self.head = nn.Linear(8, 16), nn.Linear(16, 10)
        self.steps = [self.attention, self.middle]

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(F.relu(self.steps[1](self.steps[0](x, x, x)[0])).mean(1))


@pytest.mark.parametrize("method", ["ThresNet", "ALDSNet"])
def test_modules_that_a_list_holds_are_not_replaced(method: str) -> None:
    network, example = seasoned(Listed), noise(6, 5, 6)
    pruned = prune_like(network, method, 0.8, example)
    steps: list[nn.Module] = pruned.network.steps  # type: ignore[assignment]
    assert steps[0] is pruned.network.get_submodule("attention")
    assert steps[1] is pruned.network.get_submodule("middle")
    assert any("'attention.out_proj'" in line for line in pruned.warnings)
    assert any("'middle' (Linear)" in line for line in pruned.warnings) == (method == "ALDSNet")
    assert pruned.size < count_size(network)


class Functional(nn.Module):
    """A layer whose weight is read by a function, and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.read, self.unused = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(F.linear(F.relu(self.first(x)), self.read.weight, self.read.bias)))


@pytest.mark.parametrize("method", METHODS)
def test_layers_that_no_forward_calls_are_left_alone_and_named(method: str) -> None:
    network = seasoned(Functional)
    for rules in (PAPER, REFERENCE):
        pruned = prune_like(network, method, 0.8, noise(6, 8), rules=rules)
        assert any("'read' (Linear), 'unused' (Linear)" in line for line in pruned.warnings)
        for name in ("read", "unused"):
            assert not any(mask.startswith(f"{name}.") for mask in pruned.masks)
            assert registry.METHODS[method].reinitialised or torch.equal(
                pruned.network.get_submodule(name).weight, network.get_submodule(name).weight
            )
        assert pruned.size < count_size(network)


@pytest.mark.parametrize("kind", ["encoder", "audio", "decoder"])
@pytest.mark.parametrize("method", ["ThresNet", "FilterThresNet", "ALDSNet"])
def test_the_references_rules_prune_the_references_layers(method: str, kind: str) -> None:
    network, example = network_of_kind(kind)
    pruned = prune_like(network, method, 0.9, example, rules=REFERENCE)
    reduced = {layer.name for layer in pruned.layers if layer.kept < layer.total}
    taken = {name for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    assert reduced
    if method == "ALDSNet":  # propagation of the others also prunes what has no gradient
        assert reduced <= taken


def test_decomposed_attention_is_decomposed_again_and_packed_when_it_is_whole() -> None:
    network, example = seasoned(Encoder), noise(6, 5, 6)
    original, flops = count_size(network), count_flops(network, example)
    first = prune_like(network, "ALDSNet", 0.6, example)
    attention = first.network.get_submodule("encoder.layers.0.self_attn")
    assert isinstance(attention, Equivalent)
    with torch.no_grad():  # torch's encoder layers read the weights themselves where gradients are off
        fused = first.network(example)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            torch.testing.assert_close(first.network(example), fused, rtol=1e-4, atol=1e-4)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    second = prune_like(first.network, "ALDSNet", 0.4, example, original_size=original, original_flops=flops)
    assert second.size < first.size
    assert second.structure
    mixed = prune_like(second.network, "ThresNet", 0.3, example, original_size=original, original_flops=flops)
    assert mixed.structure == second.structure
    assert mixed.size == count_size(mixed.network, mixed.masks) == pytest.approx(0.3 * original, rel=0.005)


@pytest.mark.parametrize("method", ["ThresNet", "SiPPNet", "FilterThresNet", "PFPNet"])
@pytest.mark.parametrize("kind", ["encoder", "unet", "decoder", "lstm"])
def test_a_cascade_keeps_packed_masks(method: str, kind: str) -> None:
    network, example = network_of_kind(kind)
    original, masks, current = count_size(network), None, network
    for ratio in (0.8, 0.6):
        pruned = prune_like(current, method, ratio, example, original_size=original, original_flops=1, masks=masks)
        for name, mask in (masks or {}).items():
            assert bool((pruned.masks[name] <= mask).all()), name
        masks, current = pruned.masks, pruned.network


@pytest.mark.parametrize(("pattern", "layer"), [("attention.q_proj", "attention.q_proj"), ("attention.*", "")])
def test_projections_are_ignored_by_name(pattern: str, layer: str) -> None:
    network = seasoned(OneBlock)
    pruned = prune_like(network, "ThresNet", 0.8, noise(6, 5, 6), ignore=[pattern])
    whole = {each.name for each in pruned.layers if each.kept == each.total}
    projections = {f"attention.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    assert whole & projections == ({layer} if layer else projections)


@pytest.mark.parametrize(("method", "build"), [("FilterThresNet", nn.LSTM), ("ALDSNet", nn.Bilinear)])
def test_a_network_without_layers_for_a_method_is_refused(method: str, build: Callable[..., nn.Module]) -> None:
    class Only(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = build(4, 4) if build is nn.LSTM else build(4, 4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0] if build is nn.LSTM else self.layer(x, x)

    with pytest.raises(ConfigError, match=r"no compressible layer \(linear"):
        prune_like(Only(), method, 0.5, noise(3, 4))
    assert math.isclose(prune_like(Only(), "ThresNet", 0.5, noise(3, 4)).size, count_size(Only()) / 2, rel_tol=0.01)


@pytest.mark.parametrize(("method", "expected"), [("PFPNet", True), ("ThresNet", True), ("FilterThresNet", False)])
def test_layers_that_fill_zeros_of_their_weights_are_named(method: str, expected: bool) -> None:
    network, example = network_of_kind("own forward")
    lines = [line for line in prune_like(network, method, 0.6, example).warnings if "remove no product" in line]
    assert [line.startswith(f"{method}: zeros in the weights of 'standardised' remove") for line in lines] == [
        True
    ] * expected
