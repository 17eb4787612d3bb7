"""Prune a network of your own, without experiment files, Luigi or result folders.

    from luigi_prune import api

    pruned = api.prune(network, "SiPPNet", keep_ratio=0.5, calibration=[(x, y), ...], loss=loss_fn)
    train(pruned.network)                                       # any loop: what was removed stays exactly zero
    pruned = api.prune(pruned, "SiPPNet", keep_ratio=0.25, ...)  # a cascade: ratios stay relative to the original
    pruned.save("small.h5")
    pruned = api.load("small.h5", fresh_network)

`python -m luigi_prune methods`, or `methods()`, lists what can be named.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from luigi_prune import registry
from luigi_prune.api.mask_hooks import held_masks, hold, release
from luigi_prune.api.pruned import Pruned, PrunedLayer, load, pruned_layers
from luigi_prune.api.validation import calibration_batches, check, guess_input, missing_loss
from luigi_prune.compute import pruning
from luigi_prune.compute.pruning.problem.records import Allocation, Problem
from luigi_prune.errors import ConfigError
from luigi_prune.registry import MethodRow
from luigi_prune.registry.rows import Granularity

__all__ = ["MethodRow", "Pruned", "PrunedLayer", "load", "methods", "prune", "release"]


def methods() -> list[MethodRow]:
    """Return the catalogue, with the methods of installed packages: one row per method.

    A row says its `name` and `short` name, `granularity` (what it removes), whether it `needs_data`, whether it is
    `randomised`, its `paper`, and in a line (`summary`) what it does.
    """
    return list(registry.METHODS.values())


def prune(
    network: nn.Module | Pruned,
    method: str | MethodRow | None = None,
    keep_ratio: float = math.nan,
    *,
    calibration: Iterable[tuple[Tensor, Tensor]] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    seed: int = 0,
    rules: str = "paper",
    example_input: Tensor | None = None,
    original: nn.Module | None = None,
    ignore: Iterable[str] = (),
    score: Callable[[Problem], list[Tensor]] | None = None,
    granularity: Granularity = "filter",
    allocation: str | Allocation = "uniform",
) -> Pruned:
    """Return `network` pruned by `method` so that it keeps `keep_ratio` of the original's parameters.

    network: any module that takes one tensor; it is not touched. A `Pruned` is pruned further; its ratio is relative
        to the original network, and nothing that was removed comes back.
    method: a name or short name of the catalogue, or a row of one's own.
    calibration: batches (inputs, targets) of any size, for methods that read data (a list, a DataLoader, ...).
    loss: of (outputs, targets), a scalar; for methods that read gradients.
    seed: of all draws: the same seed gives the same result.
    rules: "paper", or "reference" for what torchprune computes (see docs/fidelity.md).
    example_input: a batch of inputs; the first calibration batch where it is left out. With neither, an input that the
        network runs on is made up: enough to find its structure, but FLOPs, which depend on the input's size, are None.
    original: the trained network before any pruning, for methods that begin with it at every step (`from_original`):
        needed where `network` is a `Pruned` that another method made, or that comes from a file.
    ignore: names of layers (of modules), or patterns of names such as "layer1.*", that are left as they are. The other
        layers are pruned so far that the whole network meets `keep_ratio`.

    score: a function to be used in place of a method: it gets the `Problem` and returns, for each of `problem.layers`,
        a number per unit, larger = keep. `granularity` says what a unit is, `allocation` how many of them each layer
        keeps. The function may read `problem.batches` if calibration is given.

    A ratio that the method cannot meet gives the closest there is and a warning that says both. Raises ConfigError in
    one line for what cannot work, UnreachableRatio where nothing would be left.
    """
    row = _row(method, score, granularity, allocation, calibration is not None)
    start, before = (network.network, network) if isinstance(network, Pruned) else (network, None)
    by_rules = pruning.find_rules(rules)
    check(row, start, keep_ratio)
    batches = calibration_batches(row, calibration)
    example = example_input if example_input is not None else batches[0][0] if batches else None
    counted = example is not None
    if example is None:
        example = guess_input(start, seed)
    masks = held_masks(start)
    bare = release(copy.deepcopy(start)) if masks else start
    original = _original_for(row, bare, before, original)
    result = pruning.prune(
        bare,
        row,
        float(keep_ratio),
        example_input=example,
        calibration=batches,
        loss=loss if loss is not None else missing_loss(row, by_rules),
        seed=seed,
        rules=by_rules,
        original_size=before.original_size if before else pruning.count_size(bare),
        original_flops=before.original_flops if before else None,
        masks=masks or None,
        original=original,
        ignore=ignore,
    )
    for text in result.warnings:
        warnings.warn(text, UserWarning, stacklevel=2)
    hold(result.network, result.masks)
    return Pruned(
        **vars(result)
        | {
            "flops": result.flops if counted else None,
            "original_flops": before.original_flops if before else result.original_flops if counted else None,
            "layers": pruned_layers(result.layers, result.masks, result.structure),
        },
        method=row.name,
        target_keep_ratio=float(keep_ratio),
        _original=original,
    )


def _row(
    method: str | MethodRow | None,
    score: Callable[[Problem], list[Tensor]] | None,
    granularity: Granularity,
    allocation: str | Allocation,
    has_data: bool,
) -> MethodRow:
    """Return the row of a method that is named, or of a bare score; raises ConfigError unless there is one of them."""
    if (method is None) == (score is None):
        raise ConfigError("give either a method or a score" + (", not both" if method is not None else ""))
    if score is None:
        return registry.find("method", method) if isinstance(method, str) else method  # type: ignore[return-value]
    name = getattr(score, "__name__", type(score).__name__)
    return MethodRow(name, granularity=granularity, score=score, allocation=allocation, needs_data=has_data)


def _original_for(
    row: MethodRow, network: nn.Module, before: Pruned | None, given: nn.Module | None
) -> nn.Module | None:
    """Return the network that a method begins with at every step, where it does not begin with the one it is given."""
    if not row.from_original:
        return before._original if before else None
    if before is None:
        return copy.deepcopy(network)
    if given is None and before._original is None:
        raise ConfigError(
            f"{row.name} begins every step with the original network, which a result of {before.method} or one from a "
            "file does not hold: give it as `original`"
        )
    if given is not None and pruning.count_size(given) != before.original_size:
        raise ConfigError(
            f"{row.name}: `original` has {pruning.count_size(given)} non-zero parameters, but the network that was "
            f"pruned had {before.original_size}"
        )
    return before._original if given is None else release(copy.deepcopy(given))
