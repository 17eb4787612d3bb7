"""Data sets from outside: functions of (split, folder) that return inputs and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from luigi_prune.compute.data.data_sources import RawData, Source
from luigi_prune.compute.named import resolve
from luigi_prune.compute.network_inputs import leaves, map_leaves
from luigi_prune.config.schema import NetworkConfig
from luigi_prune.errors import ConfigError
from luigi_prune.registry import DatasetRow, plain


def foreign_data(row: DatasetRow, split: str, folder: str) -> RawData:
    """Return the "train" or "test" samples of a foreign loader; `folder` is that of the training data.

    Inputs are uint8 images (samples, height, width[, 3]), or floats, integers or bools (samples, ...), which are not
    converted; or several of the latter, in a tuple or dictionary. Targets are class numbers (samples,) or floats
    (samples, ...). Raises ConfigError for anything else.
    """

    def wrong(reason: str) -> ConfigError:
        return ConfigError(f"network.dataset: {row.name}, split {split!r}: {reason}")

    try:
        returned = resolve(row.path)(split, Path(folder))
    except ConfigError:
        raise
    except Exception as error:  # any exception of the foreign function
        raise wrong(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}") from error
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise wrong(f"expected a pair (inputs, targets), got a {type(returned).__name__}")
    targets = _array(returned[1])
    inputs = _checked_inputs(returned[0], len(targets), wrong)
    if targets.dtype.kind not in "iuf" or (targets.dtype.kind != "f" and targets.ndim != 1):
        raise wrong(f"expected class numbers or floats, got {targets.dtype} targets of shape {targets.shape}")
    targets = targets.astype(np.float32 if targets.dtype.kind == "f" else np.int64)
    if not np.isfinite(targets).all():
        raise wrong("targets are NaN or infinite")
    if row.num_classes is None and targets.dtype.kind == "f":
        return RawData(inputs, targets)
    highest = row.num_classes if row.num_classes is not None else int(targets.max()) + 1
    if targets.dtype.kind == "f" or targets.min() < 0 or targets.max() >= highest:
        raise wrong(f"expected class numbers from 0 to {highest - 1}, got {targets.min():g} to {targets.max():g}")
    return RawData(inputs, targets)


def _checked_inputs(given: Any, targets: int, wrong: Callable[[str], ConfigError]) -> Any:
    """Return the inputs in our types; raises what `wrong` returns unless each has a sample for each of `targets`."""
    several = isinstance(given, (tuple, Mapping))
    inputs = map_leaves(_array, given) if several else _array(given)
    if not list(leaves(inputs)):
        raise wrong(f"expected arrays, got an empty {type(given).__name__}")
    for name, array in leaves(inputs):
        of = f" of input {name!r}" if name else ""
        if array.dtype.kind not in "fiub" or (array.dtype == np.uint8 and (several or array.ndim not in (3, 4))):
            wanted = "floats, integers or bools" if several else "floats, integers or uint8 images"
            raise wrong(f"expected {wanted}, got {array.dtype} numbers{of}, shape {array.shape}")
        if not array.ndim or not len(array) or len(array) != targets:
            count = len(array) if array.ndim else "no"
            raise wrong(f"expected as many targets as inputs, got {count} inputs{of} and {targets} targets")
        # One of several inputs may be a mask that excludes positions by minus infinity.
        if not (np.isfinite(array) | (several & (array == -np.inf))).all():
            raise wrong(f"inputs{of} are NaN or infinite")
    return map_leaves(_in_our_type, inputs)


def _array(part: Any) -> np.ndarray:
    return np.array(part.numpy() if isinstance(part, Tensor) else part)


def _in_our_type(array: np.ndarray) -> np.ndarray:
    """Return floats as float32, integers but bytes as int64."""
    kind: Any = {"f": np.float32, "i": np.int64, "u": np.int64}.get(array.dtype.kind, array.dtype)
    return array if array.dtype == np.uint8 else array.astype(kind)


def check_targets(source: Source, network: NetworkConfig) -> None:
    """Raise ConfigError if a class number has no output in the network."""
    targets: Any = source.targets
    if isinstance(targets, np.ndarray) and targets.dtype.kind != "f" and targets.max() >= network.output_size:
        raise ConfigError(
            f"network.outputSize: {network.output_size} outputs do not fit {plain(network.dataset)}, which has the "
            f"class {targets.max()}"
        )
