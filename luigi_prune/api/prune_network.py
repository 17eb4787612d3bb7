"""Prune any network, without experiment files, Luigi or result folders.

    from luigi_prune import api

    pruned = api.prune(network, "SiPPNet", keep_ratio=0.5, calibration=[(x, y), ...], loss=loss_fn)
    train(pruned.network)                                       # any loop: pruned entries stay exactly zero
    pruned = api.prune(pruned, "SiPPNet", keep_ratio=0.25, ...)  # a cascade: ratios are relative to the original
    pruned.save("small.h5")
    pruned = api.load("small.h5", fresh_network)

`python -m luigi_prune methods`, or `methods()`, lists the methods.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal

from torch import Tensor, nn

from luigi_prune import registry
from luigi_prune.api.mask_hooks import hold, release
from luigi_prune.api.plain_network import plain
from luigi_prune.api.pruned import Pruned, PrunedLayer, pruned_layers
from luigi_prune.api.validation import (
    check_network,
    check_signature,
    checked_batches,
    explained_loss,
    guess_input,
    missing_loss,
    ratio_of,
    seed_of,
)
from luigi_prune.compute import pruning
from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.network_inputs import Inputs, checked, copied, select
from luigi_prune.compute.pruning.engine.pipeline import EXAMPLES
from luigi_prune.compute.pruning.problem.masks import joined_masks, remembering_counts, zeros_as_masks
from luigi_prune.compute.pruning.problem.records import Allocation, Problem
from luigi_prune.errors import ConfigError
from luigi_prune.registry import MethodRow
from luigi_prune.registry.rows import Granularity

__all__ = ["MethodRow", "Pruned", "PrunedLayer", "methods", "prune", "release"]


def methods() -> list[MethodRow]:
    """Return the rows of all methods, including those of installed packages.

    A row has, among others, `name`, `short` name, `granularity` (the pruned units), `needs_data`, `randomised`, `paper`
    and a one-line `summary`.
    """
    return list(registry.METHODS.values())


@remembering_counts
def prune(
    network: nn.Module | Pruned,
    method: str | MethodRow | None = None,
    keep_ratio: Any = math.nan,
    *,
    calibration: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    seed: int = 0,
    rules: str = "paper",
    example_input: Inputs | None = None,
    original: nn.Module | None = None,
    ignore: Iterable[str] = (),
    include: Iterable[str] = (),
    zeros: Literal["kept", "pruned"] = "kept",
    score: Callable[[Problem], list[Tensor]] | None = None,
    granularity: Granularity = "filter",
    allocation: str | Allocation = "uniform",
) -> Pruned:
    """Return `network` pruned by `method` so that it keeps `keep_ratio` of the original's parameters.

    network: any module; it is not changed. A `Pruned` is pruned further; its ratio is relative to the original network,
        and pruned entries remain pruned. Wrappers (torch.compile, DataParallel) are taken off, and masks of
        `torch.nn.utils.prune` are taken over, with a warning.
    keep_ratio: any number in (0, 1]; 1 removes nothing.
    method: a registered name or short name, or a row.
    calibration: batches (inputs, targets) of any size, for methods that read data (a list, a DataLoader, ...). Inputs
        are a tensor, or several: a tuple or list is called as network(*inputs), a dictionary as network(**inputs). A
        bare dictionary is a batch, too, whose targets are its "labels".
    loss: of (outputs, targets), a scalar; for methods that read gradients. It gets the network's output as it is: a
        tensor, dictionary, object with `.logits`, ...
    seed: of all random draws; the same seed gives the same result.
    rules: "paper", or "reference" for the computations of torchprune (see docs/fidelity.md).
    example_input: a batch of inputs, one tensor or several as above; by default the first calibration batch. With
        neither, a valid input of one tensor is guessed, which suffices to trace the network; but FLOPs, which depend on
        the input's size, are then None.
    original: the trained network before any pruning, for methods that start from it at every step (`from_original`);
        required if `network` is a `Pruned` of another method or from a file.
    ignore: names of layers (modules), or patterns such as "layer1.*", that are not pruned. The other layers are pruned
        until the entire network meets `keep_ratio`.
    include: names of embeddings, or patterns, that are pruned, too, by a method of single weights; by default they are
        left alone.
    zeros: "kept": only masks remove entries, and a zero in an unpruned network is a parameter like any other. "pruned":
        weights of `network` that are exactly zero are removed, for a network that was pruned without masks; they do not
        count as its parameters.

    score: a function that replaces `method`: it takes the `Problem` and returns, for each of `problem.layers`, a tensor
        with one number per unit, larger = keep. `granularity` defines the units, `allocation` how many of them each
        layer keeps. The function may read `problem.batches` if calibration is given.

    If the method cannot meet the ratio, the closest one is used, with a warning that contains both. Raises ConfigError
    for invalid arguments, UnreachableRatio if nothing would be left.
    """
    row = _row(method, score, granularity, allocation, calibration is not None)
    given, before = (network.network, network) if isinstance(network, Pruned) else (network, None)
    by_rules, ratio, seed = pruning.find_rules(rules), ratio_of(row, keep_ratio), seed_of(row, seed)
    check_network(row, given)
    bare, masks, lines = plain(given)
    if zeros not in ("kept", "pruned"):
        raise ConfigError(f"{row.name}: zeros: expected 'kept' or 'pruned', got {zeros!r}")
    if zeros == "pruned" or by_rules.zeros_are_pruned:
        masks = joined_masks(zeros_as_masks(bare), masks)
    batches = checked_batches(row, calibration)
    example = batches[0][0] if batches else None
    if example_input is not None:
        example = checked(f"{row.name}: the example input", example_input)
    for inputs in ([] if example is None else [example]) + [inputs for inputs, _ in batches or ()][:1]:
        check_signature(row, bare, inputs)
    counted = example is not None
    if example is None:
        example = guess_input(bare, seed)
    original = _original_for(row, bare, before, original)
    result = pruning.prune(
        bare,
        row,
        ratio,
        example_input=example,
        calibration=batches,
        loss=explained_loss(row, loss) if loss is not None else missing_loss(row, by_rules),
        seed=seed,
        rules=by_rules,
        original_size=before.original_size if before else pruning.count_size(bare, masks),
        original_flops=before.original_flops if before else None,
        masks=masks or None,
        original=original,
        ignore=ignore,
        include=include,
    )
    result.warnings[:0] = lines
    for text in result.warnings:
        warnings.warn(text, UserWarning, stacklevel=3)  # of the caller of the decorated function
    hold(result.network, result.masks)
    return Pruned(
        **vars(result)
        | {
            "flops": result.flops if counted else None,
            "original_flops": before.original_flops if before else result.original_flops if counted else None,
            "layers": pruned_layers(result.network, result.masks, result.structure),
        },
        method=row.name,
        target_keep_ratio=ratio,
        _original=original,
        _example=copied(select(example, slice(EXAMPLES))) if counted else None,
    )


def _row(
    method: str | MethodRow | None,
    score: Callable[[Problem], list[Tensor]] | None,
    granularity: Granularity,
    allocation: str | Allocation,
    has_data: bool,
) -> MethodRow:
    """Return the row of a method or of a bare score; raises ConfigError unless exactly one of them is given."""
    if (method is None) == (score is None):
        raise ConfigError("give either a method or a score" + (", not both" if method is not None else ""))
    if score is None:
        if not isinstance(method, (str, MethodRow)):
            raise ConfigError(f"method: expected a name or a MethodRow, got a {type(method).__name__}")
        return registry.find("method", method) if isinstance(method, str) else method
    name = getattr(score, "__name__", type(score).__name__)
    return MethodRow(name, granularity=granularity, score=score, allocation=allocation, needs_data=has_data)


def _original_for(
    row: MethodRow, network: nn.Module, before: Pruned | None, original: nn.Module | None
) -> nn.Module | None:
    """Return the original network, from which `from_original` methods start every step, if it is known."""
    if not row.from_original:
        return before._original if before else None
    if before is None:
        return duplicate(network)
    if original is None and before._original is None:
        raise ConfigError(
            f"{row.name} starts every step from the original network, which a result of {before.method} or from a file "
            "does not contain: pass it as `original`"
        )
    if original is None:
        return before._original
    plain_original, masks, _ = plain(original)
    if (size := pruning.count_size(plain_original, masks)) != before.original_size:
        raise ConfigError(
            f"{row.name}: `original` has {size} parameters, but the original of the pruned network had "
            f"{before.original_size}"
        )
    return duplicate(plain_original)
