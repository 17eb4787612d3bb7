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
import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune import catalogue
from luigi_prune.catalogue import MethodRow
from luigi_prune.catalogue.rows import Granularity
from luigi_prune.compute import pruning
from luigi_prune.compute.given import calibration_batches, check, guess_input, missing_loss
from luigi_prune.compute.holding import held_masks, hold, release
from luigi_prune.compute.pruning import LayerBudget
from luigi_prune.compute.pruning.protocol import Allocation, Problem
from luigi_prune.compute.state import from_arrays, to_arrays
from luigi_prune.errors import ConfigError
from luigi_prune.pruned_file import PrunedFile, read, write

__all__ = ["MethodRow", "Pruned", "PrunedLayer", "load", "methods", "prune", "release"]

log = logging.getLogger("luigi_prune")


@dataclass(frozen=True, eq=False)
class PrunedLayer:
    """A compressible layer: how many of its weights are kept, and which.

    `mask`: bool, of the weight's shape, True = kept. Where the layer was decomposed there is none, but `rank`, `groups`
    and `folding`, and what that lost before any retraining, relative to the layer's operator norm: `error_operator`
    truly, `error_estimate` as ALDS estimates it (None for Messi; both None for PCA, which approximates outputs).
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    total: int
    mask: Tensor | None = field(default=None, repr=False)
    rank: int | None = None
    groups: int | None = None
    folding: int | None = None
    error_estimate: float | None = None
    error_operator: float | None = None


@dataclass
class Pruned:
    """A pruned network and what was kept of it.

    `network`: an ordinary module whose removed entries stay exactly zero in training (`release` gives a copy of it that
    no longer minds). `size`: non-zero parameters. `flops`: multiply-adds of one sample, None where no input was
    given to count them on. `layers`: per compressible layer, in order. `masks`: parameter name -> True where kept, of
    the parameters that have removed entries. `method` and `wanted` are what was asked for.
    """

    network: nn.Module = field(repr=False)
    method: str
    wanted: float
    size: int
    flops: int | None
    original_size: int
    original_flops: int | None
    layers: list[PrunedLayer] = field(repr=False)
    structure: list[dict[str, Any]] = field(default_factory=list, repr=False)
    _original: nn.Module | None = field(default=None, repr=False)

    @property
    def keep_ratio(self) -> float:
        """The achieved ratio: non-zero parameters over those of the original network."""
        return self.size / self.original_size

    @property
    def masks(self) -> dict[str, Tensor]:
        """What the network holds: parameter name -> bool tensor of its shape, True where kept."""
        return held_masks(self.network)

    def save(self, path: str | Path) -> None:
        """Write all but the code of the network to an HDF5 file; its folder is made.

        Raises ConfigError where another result stands there already: results are never overwritten.
        """
        weights, types = to_arrays(self.network.state_dict())
        numbers = {name: getattr(self, name) for name in ("size", "flops", "original_size", "original_flops")}
        content = PrunedFile(
            method=self.method,
            wanted=self.wanted,
            weights=weights,
            types=types,
            masks={name: mask.cpu().numpy() for name, mask in self.masks.items()},
            numbers={name: number for name, number in numbers.items() if number is not None},
            layers=[(layer.name, layer.kept, layer.total) for layer in self.layers],
            structure=self.structure,
        )
        write(path, content)


def methods() -> list[MethodRow]:
    """Return the catalogue, with the methods of installed packages: one row per method.

    A row says its `name` and `short` name, `granularity` (what it removes), whether it `needs_data`, whether it is
    `randomised`, its `paper`, and in a line (`summary`) what it does.
    """
    return list(catalogue.METHODS.values())


def prune(
    network: nn.Module | Pruned,
    method: str | MethodRow | None = None,
    keep_ratio: float = math.nan,
    calibration: Iterable[tuple[Tensor, Tensor]] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    seed: int = 0,
    rules: str = "paper",
    example_input: Tensor | None = None,
    original: nn.Module | None = None,
    *,
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

    score: a function to be used in place of a method: it gets the `Problem` and returns, for each of `problem.layers`,
        a number per unit, larger = keep. `granularity` says what a unit is, `allocation` how many of them each layer
        keeps. The function may read `problem.batches` if calibration is given.

    A ratio that the method cannot meet gives the closest there is and a warning that says both. Raises ConfigError in
    one line for what cannot work, UnreachableRatio where nothing would be left.
    """
    row = _row(method, score, granularity, allocation, calibration is not None)
    start, before = (network.network, network) if isinstance(network, Pruned) else (network, None)
    check(row, start, keep_ratio)
    batches = calibration_batches(row, calibration)
    example = example_input if example_input is not None else batches[0][0] if batches else None
    counted = example is not None
    if example is None:
        example = guess_input(start, seed)
    masks = held_masks(start)
    bare = release(copy.deepcopy(start)) if masks else start
    original = _original_for(row, bare, before, original)
    with _warnings_heard() as heard:
        result = pruning.prune(
            bare,
            row,
            float(keep_ratio),
            example_input=example,
            calibration=batches,
            loss=loss if loss is not None else missing_loss(row, rules),
            seed=seed,
            rules=rules,
            original_size=before.original_size if before else pruning.count_size(bare),
            original_flops=before.original_flops if before else None,
            masks=masks or None,
            original=original,
        )
    for warning in heard:
        warnings.warn(warning, UserWarning, stacklevel=2)
    return Pruned(
        network=hold(result.network, result.masks),
        method=row.name,
        wanted=float(keep_ratio),
        size=result.size,
        flops=result.flops if counted else None,
        original_size=result.original_size,
        original_flops=before.original_flops if before else result.original_flops if counted else None,
        layers=_layers(result.layers, result.masks, result.structure),
        structure=result.structure,
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
        return catalogue.find("method", method) if isinstance(method, str) else method  # type: ignore[return-value]
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


def load(path: str | Path, network: nn.Module) -> Pruned:
    """Return what `Pruned.save` wrote, on the architecture of `network`: the unpruned one, which is not touched.

    Raises FileNotFoundError, DamagedResult where the file's bytes are not those that were written, ConfigError where
    the file is none of a pruned network or `network` is another one.
    """
    content = read(path)
    fresh = pruning.restore(release(copy.deepcopy(network)), content.structure)
    try:
        fresh.load_state_dict(from_arrays(content.weights, content.types))
    except RuntimeError as error:
        reason = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise ConfigError(f"{path}: the network is not the one that was pruned: {reason[0]}") from error
    masks = {name: torch.from_numpy(mask) for name, mask in content.masks.items()}
    numbers = content.numbers
    return Pruned(
        network=hold(fresh, masks),
        method=content.method,
        wanted=content.wanted,
        size=numbers["size"],
        flops=numbers.get("flops"),
        original_size=numbers["original_size"],
        original_flops=numbers.get("original_flops"),
        layers=_layers(pruning.layer_budgets(fresh), masks, content.structure),
        structure=content.structure,
    )


def _layers(budgets: list[LayerBudget], masks: dict[str, Tensor], structure: list[dict[str, Any]]) -> list[PrunedLayer]:
    """Return the record of every compressible layer, with its mask or its decomposition."""
    replaced = {entry["layer"]: entry for entry in structure}
    found = []
    for layer in budgets:
        more: dict[str, Any] = {}
        if (entry := replaced.get(layer.name)) is not None:
            more = {name: int(entry[name]) for name in ("rank", "groups", "folding")}
            more |= {name: entry.get(name) for name in ("error_estimate", "error_operator")}
        else:
            kept = masks.get(f"{layer.name}.weight" if layer.name else "weight")
            more["mask"] = torch.ones(layer.shape, dtype=torch.bool) if kept is None else kept
        found.append(PrunedLayer(layer.name, layer.shape, layer.kept, layer.total, **more))
    return found


class _Listener(logging.Handler):
    """Hears this thread's warnings in the package's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.heard.append(record.getMessage())


@contextmanager
def _warnings_heard() -> Iterator[list[str]]:
    """Collect what is logged inside the block: a library warns, and its caller may have set up no log."""
    listener = _Listener()
    log.addHandler(listener)
    try:
        yield listener.heard
    finally:
        log.removeHandler(listener)
