"""What holds for every method of the catalogue on every kind of network."""

from __future__ import annotations

import copy
import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import registry
from luigi_prune.compute.pruning import PruningResult, Rules, count_flops, count_size, layer_budgets, prune, restore
from luigi_prune.compute.pruning.allocations.by_score import ALLOCATIONS
from luigi_prune.compute.pruning.engine.named_parts import resolve_function
from luigi_prune.compute.pruning.engine.pipeline import is_prunable
from luigi_prune.compute.pruning.engine.rules import PAPER
from luigi_prune.compute.pruning.engine.trial import Trial
from luigi_prune.compute.pruning.problem.granularity import GRANULARITIES
from luigi_prune.compute.pruning.problem.layers import find_layers
from luigi_prune.compute.pruning.problem.masks import initial_masks
from luigi_prune.compute.pruning.problem.records import Problem
from luigi_prune.compute.pruning.scores import SCORES
from luigi_prune.compute.pruning.selection.top_and_sample import SELECTIONS
from luigi_prune.compute.pruning.torchprune.gradient_propagation import REFERENCE
from luigi_prune.errors import ConfigError
from tests.compute.pruning.zoo import ZOO, images, trained_like

METHODS = [name for name, row in registry.METHODS.items() if row.granularity != "none"]
MASKING = [name for name in METHODS if registry.METHODS[name].granularity != "rank"]


def prune_like(network: nn.Module, method: str, ratio: float, example: Tensor, **settings: object) -> PruningResult:
    """Prune with the usual arguments; the calibration set is two batches like the example."""
    targets = torch.arange(len(example)) % 10
    given: dict[str, object] = {
        "example_input": example,
        "calibration": [(example, targets), (example.flip(0), targets)],
        "loss": F.cross_entropy,
        "seed": 0,
        "original_size": count_size(network),
    }
    return prune(network, registry.METHODS[method], ratio, **{**given, **settings})  # type: ignore[arg-type]


def nonzero(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() != 0 for name, parameter in network.named_parameters()}


@pytest.fixture(params=list(ZOO))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def in_turn(methods: list[str], *, kinds: int) -> list[tuple[str, str]]:
    """Return (method, kind of network) with `kinds` networks for each method, in turn, so that each has its share."""
    turn = itertools.cycle(ZOO)
    pairs = [(method, next(turn)) for method in methods for _ in range(kinds)]
    assert {kind for _, kind in pairs} == set(ZOO)
    return pairs


@pytest.mark.parametrize(("method", "kind"), in_turn(METHODS, kinds=2))
def test_the_input_is_untouched_and_the_seed_decides(method: str, kind: str) -> None:
    network, example = trained_like(kind)
    network.train()
    next(network.parameters()).requires_grad_(False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.enable_grad():
        first = prune_like(network, method, 0.4, example)
    with torch.inference_mode():
        second = prune_like(network, method, 0.4, example)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())
    assert first.network.training
    needs = {name: p.requires_grad for name, p in first.network.named_parameters()}
    wanted = {name: p.requires_grad for name, p in network.named_parameters()}
    factors = {name: name.replace(".encode", "").replace(".decode", "") for name in needs if name not in wanted}
    assert bool(factors) == bool(first.structure)
    # A bias that a decomposition adds is trained.
    assert all(needs[name] == wanted.get(layer, True) for name, layer in factors.items())
    assert all(needs[name] == wanted[name] for name in needs if name not in factors)
    one, other = first.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    # ThiNet looks at random outputs and may rank alike; SiPP's hybrid draws only where drawing is better.
    if registry.METHODS[method].randomised and method not in ("ThiNet", "SiPPNetHybrid"):
        others = (prune_like(network, method, 0.4, example, seed=seed).network.state_dict() for seed in (1, 2))
        assert any(not torch.equal(one[key], third[key]) for third in others for key in one)


RATIOS = [
    *((method, kind, 0.2) for method in MASKING for kind in ZOO),
    *((method, kind, ratio) for ratio in (0.6, 1.0) for method, kind in in_turn(MASKING, kinds=1)),
]


@pytest.mark.parametrize(("method", "kind", "ratio"), RATIOS)
def test_reports_and_masks_agree_with_the_network(method: str, kind: str, ratio: float) -> None:
    network, example = trained_like(kind)
    pruned = prune_like(network, method, ratio, example)
    assert pruned.size == count_size(pruned.network, pruned.masks)
    assert pruned.flops == count_flops(pruned.network, example, pruned.masks)
    assert pruned.original_flops == count_flops(network, example)
    assert pruned.layers == layer_budgets(pruned.network, pruned.masks)
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in layer_budgets(network)]
    kept, names = nonzero(pruned.network), set(pruned.masks)
    redrawn = registry.METHODS[method].reinitialised
    for name in kept:
        if redrawn:  # fresh biases are zero
            assert not kept[name][~pruned.masks.get(name, torch.ones_like(kept[name]))].any(), name
            continue
        assert torch.equal(kept[name], pruned.masks.get(name, torch.ones_like(kept[name]))), name
        assert (name in names) == (not bool(kept[name].all()))
    if ratio == 1.0:
        assert pruned.size == count_size(network)
        state = pruned.network.state_dict()
        assert redrawn or all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("method", MASKING)
def test_the_achieved_size_is_the_nearest_of_all_levels(method: str) -> None:
    network, example = trained_like("residual")
    sizes: set[int] = set()
    for ratio in (0.7, 0.3):
        pruned = prune_like(network, method, ratio, example)
        wanted = round(ratio * pruned.original_size)
        if abs(pruned.size - wanted) <= 0.005 * wanted:
            continue
        if not sizes:
            trial = trial_of(method, "residual")
            sizes = {trial.size_at(level) for level in range(trial.levels.count)} - {0}  # 0: nothing is left of it
        assert abs(pruned.size - wanted) == min(abs(size - wanted) for size in sizes)


def trial_of(method: str, kind: str) -> Trial:
    """Return the trial of a method without the search, propagating as `prune` does."""
    from luigi_prune.compute.pruning.engine.trial_search import propagated_start

    network, example = trained_like(kind)
    row = registry.METHODS[method]
    targets = torch.arange(len(example)) % 10
    batches = [(example, targets), (example.flip(0), targets)]
    with torch.no_grad():
        prunable = partial(is_prunable, row.granularity, PAPER)
        layers = find_layers(network, example, PAPER.find_ends, prunable=prunable, granularity=row.granularity)
        masks = initial_masks(network, None)
        problem = Problem(network, layers, masks, {}, example, batches, F.cross_entropy, 0, PAPER)
        probe = propagated_start(problem)
        assert probe is not None
        scores = resolve_function("score", row.score, SCORES)(problem)
        levels = resolve_function("allocation", row.allocation, ALLOCATIONS)(problem, scores, row.granularity)
        selection = resolve_function("selection", row.selection, SELECTIONS)
        return Trial(problem, scores, levels, selection, row.granularity, probe)


@pytest.mark.parametrize("method", MASKING)
def test_every_layer_keeps_a_unit_and_levels_only_grow(method: str, kind: str) -> None:
    trial = trial_of(method, kind)
    trial.probes = None  # the allocation, before propagation
    unit = GRANULARITIES[registry.METHODS[method].granularity]
    previous: dict[str, Tensor] = {}
    last = trial.levels.count - 1
    with torch.no_grad():
        for level in sorted({0, 1, last // 4, last // 2, last - 1, last} & set(range(last + 1))):
            trial.size_at(level)
            for layer in trial.problem.layers:
                assert bool(unit.alive(layer.by_unit(trial.masks[layer.weight_name])).any()), (level, layer.name)
            if registry.METHODS[method].selection != "mixed":  # there what was drawn gives way to what is certain
                for name, mask in previous.items():
                    assert bool((trial.masks[name] | ~mask).all()), (level, name)
            previous = dict(trial.masks)
        assert all(bool(mask.all()) for mask in previous.values())


DECOMPOSING = [name for name in METHODS if name not in MASKING]


@pytest.mark.parametrize(
    ("method", "kind"), [*((method, kind) for method in DECOMPOSING for kind in ZOO), *in_turn(MASKING, kinds=2)]
)
def test_the_result_survives_a_copy_and_a_state_dict(method: str, kind: str) -> None:
    network, example = trained_like(kind)
    record = prune_like(network, method, 0.3, example)
    pruned = record.network
    fresh = restore(trained_like(kind, seed=1)[0], record.structure)
    fresh.load_state_dict(pruned.state_dict())
    with torch.no_grad():
        wanted = pruned(example)
        assert torch.equal(copy.deepcopy(pruned)(example), wanted)
        assert torch.equal(fresh(example), wanted)


@pytest.mark.parametrize(("method", "kind"), in_turn(MASKING, kinds=3))
def test_a_cascade_brings_nothing_back(method: str, kind: str) -> None:
    network, example = trained_like(kind)
    original, masks, current = count_size(network), None, network
    for ratio in (0.5, 0.15):
        pruned = prune_like(current, method, ratio, example, original_size=original, original_flops=123, masks=masks)
        assert pruned.original_flops == 123
        if masks is not None:
            before, after = nonzero(current), nonzero(pruned.network)
            for name in before:
                if name in masks:
                    assert bool((pruned.masks[name] <= masks[name]).all())
                assert bool((after[name] <= before[name]).all()), name
        masks, current = pruned.masks, pruned.network
        with torch.no_grad():  # as if retrained under the masks
            for index, (name, parameter) in enumerate(current.named_parameters()):
                generator = torch.Generator().manual_seed(index)
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
                if name in masks:
                    parameter.masked_fill_(~masks[name], 0)


def middle_layer(network: nn.Module) -> str:
    names = [layer.name for layer in layer_budgets(network)]
    return names[len(names) // 2]


def parameters_of(network: nn.Module, layer: str) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in network.get_submodule(layer).named_parameters()}


@pytest.mark.parametrize("kind", ["convnet", "residual"])
@pytest.mark.parametrize("method", METHODS)
def test_ignored_layers_are_untouched_and_the_others_meet_the_ratio(method: str, kind: str) -> None:
    for rules in (PAPER, REFERENCE) if kind == "convnet" else (PAPER,):
        check_ignored(method, kind, rules)


def check_ignored(method: str, kind: str, rules: Rules) -> None:
    network, example = trained_like(kind)
    ignored = middle_layer(network)
    before = {name: value.clone() for name, value in parameters_of(network, ignored).items()}
    pruned = prune_like(network, method, 0.8, example, ignore=[ignored], rules=rules)
    after = parameters_of(pruned.network, ignored)
    assert list(after) == list(before)
    redrawn = registry.METHODS[method].reinitialised
    assert redrawn or all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(name.startswith(f"{ignored}.") for name in pruned.masks)
    assert pruned.size < pruned.original_size == count_size(network)
    assert pruned.warnings or pruned.size / pruned.original_size == pytest.approx(0.8, rel=0.006)


def test_patterns_name_layers_and_what_matches_nothing_is_refused() -> None:
    network, example = trained_like("convnet")
    pruned = prune_like(network, "ThresNet", 0.9, example, ignore=["conv[12]", "fc"])
    assert [layer.name for layer in pruned.layers if layer.kept < layer.total] == ["conv3"]
    assert prune_like(network, "ThresNet", 0.9, example, ignore="conv*").layers[3].kept < 640
    with pytest.raises(ConfigError, match=r"^ignore: there is no compressible layer 'cnv1'; did you mean 'conv1'\?$"):
        prune_like(network, "ThresNet", 0.9, example, ignore=["cnv1"])
    with pytest.raises(ConfigError, match="ThresNet: ignore leaves none of the 4 compressible layers to prune"):
        prune_like(network, "ThresNet", 0.9, example, ignore=["*"])


def test_a_ratio_below_what_is_ignored_is_the_closest_there_is() -> None:
    network, example = trained_like("mlp")
    largest = max(layer_budgets(network), key=lambda layer: layer.total)
    pruned = prune_like(network, "ThresNet", 0.05, example, ignore=[largest.name])
    assert pruned.size > largest.total > 0.05 * pruned.original_size
    assert "keep ratio 0.05 cannot be met" in pruned.warnings[0]


def test_what_cannot_be_reached_is_the_closest_and_says_so() -> None:
    network, example = trained_like("convnet")
    pruned = prune_like(network, "FilterThresNet", 0.001, example)
    trial = trial_of("FilterThresNet", "convnet")
    assert pruned.size == trial.size_at(0)
    achieved = f"{pruned.size / pruned.original_size:.4g}"
    assert pruned.warnings == [
        f"FilterThresNet: keep ratio 0.001 cannot be met on this network; the closest is {achieved}; "
        "at this size the output does not depend on the input"
    ]


def test_a_cascade_cannot_grow() -> None:
    network, example = trained_like("mlp")
    small = prune_like(network, "ThresNet", 0.2, example)
    again = prune_like(small.network, "ThresNet", 0.5, example, original_size=small.original_size, masks=small.masks)
    assert again.size == small.size
    assert "keep ratio 0.5 is more than earlier steps have left" in again.warnings[0]


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_ratios_outside_zero_to_one_are_refused(ratio: float) -> None:
    network, example = trained_like("mlp")
    with pytest.raises(ConfigError, match=r"outside \(0, 1\]"):
        prune_like(network, "ThresNet", ratio, example)


def test_bad_data_is_refused_in_one_line() -> None:
    network, example = trained_like("mlp")
    broken = example.clone()
    broken[1, 3] = torch.nan
    targets = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ConfigError, match="calibration batch 1 has NaN") as caught:
        prune_like(network, "ThresNet", 0.5, example, calibration=[(example, targets), (broken, targets)])
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="example input has NaN"):
        prune_like(network, "ThresNet", 0.5, broken, calibration=None)
    with pytest.raises(ConfigError, match="needs calibration data"):
        prune_like(network, "ThresNet", 0.5, example, rules=REFERENCE, calibration=None)
    with pytest.raises(ConfigError, match="needs a loss"):
        prune_like(network, "ThresNet", 0.5, example, rules=REFERENCE, loss=None)
    with pytest.raises(ConfigError, match="no compressible layer"):
        prune_like(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), "ThresNet", 0.5, images())
    with pytest.raises(ConfigError, match=r"mask 'fc1.weight' of shape \(2, 2\) does not fit"):
        prune_like(network, "ThresNet", 0.5, example, masks={"fc1.weight": torch.ones(2, 2, dtype=torch.bool)})


def test_any_batch_size_of_calibration_data_gives_the_same() -> None:
    network, example = trained_like("convnet")
    targets = torch.arange(4)
    whole = prune_like(network, "ThresNet", 0.3, example, rules=REFERENCE, calibration=[(example, targets)])
    single = [(example[i : i + 1], targets[i : i + 1]) for i in range(4)]
    split = prune_like(network, "ThresNet", 0.3, example, rules=REFERENCE, calibration=single)
    assert split.size == whole.size
    assert all(torch.equal(whole.masks[name], split.masks[name]) for name in whole.masks)


def random_rows(problem: Problem) -> list[Tensor]:
    """A score from outside the package: each filter's first weight."""
    return [layer.weight.detach().flatten(1)[:, 0].abs() for layer in problem.layers]


def test_a_score_may_be_an_import_path() -> None:
    import dataclasses

    network, example = trained_like("plain")
    row = dataclasses.replace(registry.METHODS["FilterThresNet"], score=f"{__name__}:random_rows")
    settings = {"example_input": example, "calibration": None, "loss": None, "seed": 0}
    pruned = prune(network, row, 0.5, original_size=count_size(network), **settings)  # type: ignore[arg-type]
    standard = prune_like(network, "FilterThresNet", 0.5, example)
    assert any(not torch.equal(pruned.masks[name], standard.masks[name]) for name in standard.masks)
    for wrong, message in (("filter_l3", "did you mean 'filter_l2'"), (f"{__name__}:nothing", "cannot be imported")):
        with pytest.raises(ConfigError, match=message):
            prune(
                network, dataclasses.replace(row, score=wrong), 0.5,
                original_size=count_size(network), **settings,  # type: ignore[arg-type]
            )  # fmt: skip
