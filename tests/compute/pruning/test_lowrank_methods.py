"""What holds for the methods that decompose layers: exact optima, reports, masks, cascades, rebuilding."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import registry
from luigi_prune.compute.masked import masked_parameters
from luigi_prune.compute.pruning import count_flops, count_size, layer_budgets, prune, restore
from luigi_prune.compute.pruning.engine.rules import PAPER
from luigi_prune.compute.pruning.low_rank import spectra
from luigi_prune.compute.pruning.low_rank.candidates import Candidates
from luigi_prune.compute.pruning.low_rank.clusters import cluster_rows
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed, decompose, recompose_layer
from luigi_prune.compute.pruning.low_rank.factors import Basis
from luigi_prune.compute.pruning.low_rank.principal import Directions, Moments, span_of
from luigi_prune.compute.pruning.low_rank.rank_levels import (
    RANK_ALLOCATIONS,
    RankLevels,
    choose_measured,
    largest_error,
    weight_fraction,
)
from luigi_prune.compute.pruning.low_rank.spectra import distinct_foldings, divisors, nearest_divisor, spectra_of
from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.records import Choice, Decomposition
from luigi_prune.compute.pruning.torchprune.gradient_propagation import REFERENCE
from luigi_prune.errors import ConfigError
from tests.compute.pruning.test_contract import in_turn, prune_like
from tests.compute.pruning.zoo import ZOO, trained_like

RANK_METHODS = [name for name, row in registry.METHODS.items() if row.granularity == "rank"]


def small_layers(foldings: bool) -> list[Candidates]:
    """Return three layers of different shapes with all their groups and, if wanted, foldings."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for shape in ((6, 4, 3, 3), (5, 6, 1, 1), (4, 3, 1, 3)):
        weight = torch.randn(shape, generator=generator)
        pairs = [(fold, k) for fold in (distinct_foldings(shape[2:]) if foldings else [0]) for k in divisors(shape[1])]
        kept = weight.numel()
        found.append(Candidates(kept, kept, 1, spectra_of(weight, pairs), partial(decompose, nn.Linear(1, 1))))
    return found


def every_choice(layer: Candidates) -> list[tuple[int, float]]:
    """Return (weights, error) of all that a layer may become, from the definition."""
    found = [(layer.kept, 0.0)]
    for spectrum in layer.spectra:
        for rank in range(1, spectrum.values.shape[1] + 1):  # reading them measures them all
            dropped = [float(chunk[rank]) if rank < len(chunk) else 0.0 for chunk in spectrum.values]
            found.append((rank * spectrum.per_rank, max(dropped) / spectrum.norm))
    return found


def cost_and_error(layer: Candidates, choice: Choice) -> tuple[int, float]:
    if choice is None:
        return layer.kept, 0.0
    assert isinstance(choice, Decomposition)
    spectrum = next(s for s in layer.spectra if (s.groups, s.folding) == (choice.groups, choice.folding))
    return choice.rank * spectrum.per_rank, float(spectrum.errors()[choice.rank - 1])


@pytest.mark.parametrize("foldings", [False, True])
def test_alds_reaches_the_optimum_that_brute_force_finds(foldings: bool) -> None:
    layers, fresh = small_layers(foldings), small_layers(foldings)
    best: dict[int, float] = {}  # by cost
    for combination in itertools.product(*(sorted(set(every_choice(layer))) for layer in layers)):
        cost, error = sum(pair[0] for pair in combination), max(pair[1] for pair in combination)
        best[cost] = min(best.get(cost, np.inf), error)
    costs = np.array(sorted(best))
    optimum = np.minimum.accumulate([best[cost] for cost in costs])
    for budget in range(int(costs[0]), int(costs[-1]) + 1, 7):
        allocated = largest_error(None, fresh, "rank")  # type: ignore[arg-type]
        _, choices = choose_measured(allocated, lambda levels, at=budget: levels.fill(at))
        made = [cost_and_error(layer, c) for layer, c in zip(layers, choices, strict=True)]
        assert sum(pair[0] for pair in made) <= budget
        wanted = optimum[np.searchsorted(costs, budget, side="right") - 1]
        assert max(pair[1] for pair in made) == pytest.approx(wanted, rel=1e-9)


def test_the_same_fraction_takes_the_best_groups_that_brute_force_finds() -> None:
    layers = small_layers(foldings=False)
    shares = sorted({cost / layer.total for layer in layers for cost, _ in every_choice(layer) if cost <= layer.total})
    levels = weight_fraction(None, layers, "rank")  # type: ignore[arg-type]
    seen = {tuple(levels.choose(level)) for level in range(levels.count)}
    for share in shares:
        wanted = []
        for layer in layers:
            affordable = [(error, cost) for cost, error in every_choice(layer) if cost <= share * layer.total + 1e-9]
            cheapest = min((cost, error) for cost, error in every_choice(layer))[::-1]
            wanted.append(min(affordable, default=cheapest)[0])
        errors = {
            tuple(cost_and_error(layer, c)[1] for layer, c in zip(layers, choices, strict=True)) for choices in seen
        }
        assert any(np.allclose(made, wanted, rtol=1e-9) for made in errors), share


@pytest.mark.parametrize("name", list(RANK_ALLOCATIONS))
def test_levels_cost_what_they_say_and_end_at_the_whole_network(name: str) -> None:
    layers = [Candidates(c.kept, c.total, 5, c.spectra[:1], c.build, 2) for c in small_layers(foldings=False)]
    levels = RANK_ALLOCATIONS[name](None, layers, "rank")  # type: ignore[arg-type]
    costs = [levels.cost(level) for level in range(levels.count)]
    assert costs == sorted(costs)
    assert levels.choose(levels.count - 1) == [None] * 3
    assert all(choice is None or choice.rank == 1 for choice in levels.choose(0))  # type: ignore[union-attr]
    for level in range(levels.count):
        pairs = zip(layers, levels.choose(level), strict=True)
        assert costs[level] == sum(cost_and_error(la, c)[0] + (2 if c else 0) for la, c in pairs)


RATIOS = [
    *((method, kind, 0.2) for method in RANK_METHODS for kind in ZOO),
    *((method, kind, ratio) for ratio in (0.6, 1.0) for method, kind in in_turn(RANK_METHODS, kinds=1)),
]


@pytest.mark.parametrize(("method", "kind", "ratio"), RATIOS)
def test_reports_agree_with_the_network(method: str, kind: str, ratio: float) -> None:
    network, example = trained_like(kind)
    pruned = prune_like(network, method, ratio, example)
    assert pruned.size == count_size(pruned.network, pruned.masks)
    assert pruned.flops == count_flops(pruned.network, example, pruned.masks)
    assert pruned.original_flops == count_flops(network, example)
    assert pruned.layers == layer_budgets(pruned.network, pruned.masks)
    assert [(la.name, la.shape, la.total) for la in pruned.layers] == [
        (la.name, la.shape, la.total) for la in layer_budgets(network)
    ]
    replaced = {entry["layer"] for entry in pruned.structure}
    assert {layer.name for layer in pruned.layers if layer.kept < layer.total} == replaced
    parameters = dict(pruned.network.named_parameters())
    for name, mask in pruned.masks.items():
        assert torch.equal(mask, parameters[name] != 0)
    if ratio == 1.0:
        assert (pruned.size, pruned.structure) == (count_size(network), [])
        state = pruned.network.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(("method", "kind"), in_turn(RANK_METHODS, kinds=3))
def test_a_cascade_recomposes_and_shrinks(method: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    network, example = trained_like(kind)
    original, flops = count_size(network), count_flops(network, example)
    current, masks, sizes = network, None, []
    for ratio in (0.7, 0.4, 0.25):
        pruned = prune_like(
            current, method, ratio, example, original_size=original, original_flops=flops, masks=masks,
            original=network,
        )  # fmt: skip
        sizes.append(pruned.size)
        assert [layer.name for layer in pruned.layers] == [layer.name for layer in layer_budgets(network)]
        assert pruned.original_flops == flops
        fresh = restore(trained_like(kind, seed=1)[0], pruned.structure)
        fresh.load_state_dict(pruned.network.state_dict())
        masked = masked_parameters(fresh, pruned.masks)
        optimizer = torch.optim.SGD(fresh.parameters(), 0.01, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(fresh(example), torch.arange(len(example))).backward()
            for parameter in masked:
                parameter.clear_gradient()
            optimizer.step()
            for parameter in masked:
                parameter.clear_weight()
        for name, mask in pruned.masks.items():
            assert not bool(fresh.get_parameter(name)[~mask].any()), name
        current, masks = fresh, pruned.masks
    assert sizes == sorted(sizes, reverse=True)


def test_recomposing_undoes_a_decomposition_in_every_folding() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 5, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), padding_mode="reflect")
    x = torch.randn(2, 6, 9, 8)
    for layer, value in ((conv, x), (nn.Linear(8, 5), torch.randn(2, 7, 8))):
        for folding, groups in itertools.product(range(4), (1, 2)):
            new = decompose(layer, Decomposition(2, groups, folding if layer is conv else 0))
            again = recompose_layer(new)
            assert type(again) is type(layer)
            with torch.no_grad():
                assert torch.allclose(again(value), new(value), atol=1e-5)
            assert new.shape == tuple(layer.weight.shape)


def test_one_method_always_begins_with_the_original() -> None:
    network, example = trained_like("convnet")
    first = prune_like(network, "ALDSNetOne", 0.6, example)
    straight = prune_like(network, "ALDSNetOne", 0.3, example)
    stepped = prune_like(
        first.network, "ALDSNetOne", 0.3, example, masks=first.masks, original=network,
        original_size=count_size(network),
    )  # fmt: skip
    assert stepped.structure == straight.structure
    one, other = stepped.network.state_dict(), straight.network.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(ConfigError, match="ALDSNetOne starts from the original network"):
        prune_like(first.network, "ALDSNetOne", 0.3, example, masks=first.masks, original_size=count_size(network))


def test_singular_values_are_computed_once_and_only_those_that_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    network, example = trained_like("residual")
    calls: list[tuple[int, int]] = []
    compute = spectra.chunk_values

    def counted(weight: Tensor, folding: int, groups: int, basis: Basis) -> np.ndarray:
        calls.append((folding, groups))
        return compute(weight, folding, groups, basis)

    spectra.clear_cache()
    monkeypatch.setattr(spectra, "chunk_values", counted)
    prune_like(network, "ALDSNet", 0.5, example)
    once, read = len(calls), len(spectra._cache)
    assert len(layer_budgets(network)) / 2 < once < sum(len(divisors(la.shape[1])) for la in layer_budgets(network))
    prune_like(network, "ALDSNet", 0.5, example, seed=7)
    prune_like(network, "ALDSNetOne", 0.5, example)
    assert (len(calls), len(spectra._cache)) == (once, read)
    assert all(array.base is None for array in spectra._cache.values())  # what a cache keeps holds no tensor
    for method in ("SVDNet", "ALDSNetSimple", "MessiNet"):
        prune_like(network, method, 0.3, example)  # the same fraction of the rank: nothing to read
    assert (len(calls), len(spectra._cache)) == (once, read)


@pytest.mark.parametrize("kind", ["convnet", "residual"])
@pytest.mark.parametrize("method", ["ALDSNet", "ALDSNetPlus", "ALDSNetOptK"])
def test_measuring_only_what_is_chosen_changes_nothing(method: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, example = trained_like(kind)
    lazy = {}
    for ratio in (0.7, 0.4, 0.15):
        spectra.clear_cache()
        lazy[ratio] = prune_like(network, method, ratio, example).structure
    monkeypatch.setattr(spectra.Spectrum, "least_errors", spectra.Spectrum.errors)
    for ratio, structure in lazy.items():
        eager = prune_like(network, method, ratio, example).structure
        assert [entry | {"error_estimate": 0, "error_operator": 0} for entry in eager] == [
            entry | {"error_estimate": 0, "error_operator": 0} for entry in structure
        ]


class Attending(nn.Module):
    """Attention, whose projections are read, not called; and an embedding that shares its weight with the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x)))[:, 0]


@pytest.mark.parametrize("method", ["SVDNet", "ALDSNet", "MessiNet"])
def test_shared_layers_stay_and_those_of_attention_are_replaced(method: str) -> None:
    torch.manual_seed(0)
    network, example = Attending().eval(), torch.randint(0, 20, (4, 7))
    pruned = prune_like(network, method, 0.6, example)
    replaced = {entry["layer"] for entry in pruned.structure}
    assert {"block.linear1", "block.linear2", "block.self_attn.v_proj"} <= replaced
    assert not replaced & {"embed", "head"}
    fresh = restore(Attending().eval(), pruned.structure)
    fresh.load_state_dict(pruned.network.state_dict())
    with torch.no_grad():
        fused = fresh(example)
    slow = fresh(example).detach()  # with gradients attention's fused path is off
    assert torch.allclose(fused, slow, atol=1e-5)


def test_clusters_find_the_subspaces_that_are_there() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0]
    truth = torch.arange(60) % 3
    rows = torch.stack([torch.randn(2, generator=generator) @ basis[2 * int(c) : 2 * int(c) + 2] for c in truth])
    found = cluster_rows(rows.double(), 3, 2, torch.Generator().manual_seed(1))
    assert all(len(found[truth == c].unique()) == 1 for c in range(3))
    assert len(found.unique()) == 3


@pytest.mark.parametrize(("method", "count"), [("MessiNet", 3), ("MessiNet5", 5)])
def test_every_entry_belongs_to_one_cluster_for_good(method: str, count: int) -> None:
    """The stitched encoding is zero for the entries of other clusters, and masks keep it so in retraining."""
    network, example = trained_like("convnet")
    pruned = prune_like(network, method, 0.4, example)
    assert pruned.structure
    for entry in pruned.structure:
        name = f"{entry['layer']}.encode.weight"
        kept = pruned.masks[name].flatten(1)  # (count x rank, entries)
        blocks = kept.unflatten(0, (min(count, kept.shape[1]), -1)).any(1)
        assert int(blocks.sum(0).max()) == 1
        assert kept.float().mean() <= 1.001 / min(count, kept.shape[1])
        assert torch.equal(pruned.masks[name], pruned.network.get_parameter(name) != 0)


@pytest.mark.parametrize("method", RANK_METHODS)
def test_a_layer_stays_where_its_factors_would_not_be_smaller(method: str) -> None:
    """A 1x1 layer of 2 channels has no cheaper factors at any rank, so only others are replaced."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 16, 3), nn.Flatten(), nn.Linear(576, 4)).eval()
    example = torch.randn(6, 2, 8, 8)
    pruned = prune_like(network, method, 0.3, example)
    assert [entry["layer"] for entry in pruned.structure if entry["layer"] == "0"] == []
    assert torch.equal(pruned.network.get_parameter("0.weight"), network.get_parameter("0.weight"))
    assert {entry["layer"] for entry in pruned.structure} <= {"2", "4"}
    assert pruned.structure
    assert all(layer.kept <= layer.total for layer in pruned.layers)
    assert all(
        layer.kept < layer.total for layer in pruned.layers if layer.name in {e["layer"] for e in pruned.structure}
    )


def test_a_network_that_is_one_layer_can_be_decomposed() -> None:
    torch.manual_seed(0)
    layer, example = nn.Linear(30, 10), torch.randn(4, 30)
    pruned = prune(
        layer, registry.METHODS["SVDNet"], 0.5, example_input=example, calibration=None, loss=None, seed=0,
        original_size=count_size(layer),
    )  # fmt: skip
    assert isinstance(pruned.network, Decomposed)
    fresh = restore(nn.Linear(30, 10), pruned.structure)
    fresh.load_state_dict(pruned.network.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(example), pruned.network(example))


def test_nan_weights_are_refused_by_name() -> None:
    network, example = trained_like("mlp")
    with torch.no_grad():
        network.get_parameter("fc2.weight")[3, 4] = torch.nan
    for method in ("SVDNet", "MessiNet", "PCANet"):
        with pytest.raises(ConfigError, match="fc2"):
            prune_like(network, method, 0.5, example)


def test_calibration_data_are_asked_for_where_they_are_needed() -> None:
    network, example = trained_like("mlp")
    with pytest.raises(ConfigError, match="PCANet needs calibration data"):
        prune_like(network, "PCANet", 0.5, example, calibration=None)
    pruned = prune_like(network, "SVDNet", 0.001, example, calibration=None, rules=REFERENCE)
    assert all(entry["rank"] == 1 for entry in pruned.structure)
    assert "keep ratio 0.001 cannot be met" in pruned.warnings[0]


@pytest.mark.parametrize(("channels", "groups", "wanted"), [(64, 3, 4), (16, 5, 4), (48, 5, 6), (1, 3, 1), (7, 4, 7)])
def test_the_nearest_divisor(channels: int, groups: int, wanted: int) -> None:
    assert nearest_divisor(channels, groups) == wanted


@pytest.mark.parametrize("name", list(RANK_ALLOCATIONS))
def test_only_an_objective_is_filled_up(name: str) -> None:
    """A fraction of the rank or a threshold defines all ranks; the largest error leaves some open."""
    layers = [Candidates(c.kept, c.total, 5, c.spectra[:1], c.build) for c in small_layers(foldings=False)]
    levels = RANK_ALLOCATIONS[name](None, layers, "rank")  # type: ignore[arg-type]
    assert isinstance(levels, RankLevels)
    assert (levels.fill is not None) == (name == "largest_error")


@pytest.mark.parametrize("method", [name for name in RANK_METHODS if not name.startswith(("ALDSNetPlus", "Messi"))])
def test_every_layer_grows_with_the_budget(method: str) -> None:
    """Without filling, a layer keeps at least as many weights as at any smaller budget; misses are reported."""
    network, example = trained_like("convnet")
    kept: list[list[int]] = []
    for ratio in (0.15, 0.2, 0.27, 0.35, 0.45, 0.6):
        pruned = prune_like(network, method, ratio, example, rules=REFERENCE)
        kept.append([layer.kept for layer in pruned.layers])
        missed = abs(pruned.size / pruned.original_size - ratio) > 0.005 * ratio
        assert [line for line in pruned.warnings if "cannot be met" in line] == pruned.warnings
        assert bool(pruned.warnings) == missed
    for fewer, more in itertools.pairwise(kept):
        assert all(one <= other for one, other in zip(fewer, more, strict=True))
    assert kept[0] != kept[-1]


@pytest.mark.parametrize("method", ["SVDNet", "SVDErrorNet", "ALDSNetSimple", "PCANet", "ALDSNetOptK"])
def test_both_rules_choose_the_same_level_if_it_defines_the_method(method: str) -> None:
    network, example = trained_like("convnet")
    paper, reference = (prune_like(network, method, 0.3, example, rules=rules) for rules in (PAPER, REFERENCE))
    assert paper.structure == reference.structure


@pytest.mark.parametrize("inputs", [20, 100])
def test_principal_components_are_those_of_all_outputs(inputs: int) -> None:
    """Whether they are found in the coordinates of the few columns of a weight or of all outputs."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(inputs, 160)
    nn.init.normal_(layer.weight, generator=generator)
    spread = torch.logspace(0, -1, inputs)
    outputs = layer(3 + spread * torch.randn(300, inputs, generator=generator)).detach()
    span = span_of(Layer("layer", layer, "layer", False, False))
    assert (span is not None) == (inputs == 20)
    moments = Moments("layer", outputs[:10], span)
    for some in outputs.split(100):
        moments.add(some)
    directions = Directions(moments)
    values, vectors = torch.linalg.eigh(outputs.double().T.cov())
    leading, found = vectors[:, -5:], directions.leading(5)
    torch.testing.assert_close(directions.energies()[:20], values.flip(0)[:20], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found @ found.T, leading @ leading.T, rtol=0, atol=1e-4)
