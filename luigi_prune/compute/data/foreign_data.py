"""Data sets from outside: functions of (split, folder) that return inputs and targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from luigi_prune.compute.data.samples import RawData
from luigi_prune.compute.named import resolve
from luigi_prune.config.schema import NetworkConfig
from luigi_prune.errors import ConfigError
from luigi_prune.registry import DatasetRow, plain


def foreign_data(row: DatasetRow, split: str, folder: str) -> RawData:
    """Return the "train" or "test" samples of a foreign loader; `folder` is that of the training data.

    Inputs are uint8 images (samples, height, width[, 3]), or floats (samples, ...), which are not converted. Targets
    are class numbers (samples,) or floats (samples, ...). Raises ConfigError for anything else.
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
    inputs, targets = (np.array(part.numpy() if isinstance(part, Tensor) else part) for part in returned)
    if inputs.dtype.kind == "f":
        inputs = inputs.astype(np.float32)
    elif inputs.dtype != np.uint8 or inputs.ndim not in (3, 4):
        raise wrong(f"expected floats or uint8 images, got {inputs.dtype} inputs of shape {inputs.shape}")
    if not len(inputs) or len(inputs) != len(targets):
        raise wrong(f"expected as many targets as inputs, got {len(inputs)} inputs and {len(targets)} targets")
    if targets.dtype.kind not in "iuf" or (targets.dtype.kind != "f" and targets.ndim != 1):
        raise wrong(f"expected class numbers or floats, got {targets.dtype} targets of shape {targets.shape}")
    targets = targets.astype(np.float32 if targets.dtype.kind == "f" else np.int64)
    if not np.isfinite(inputs).all() or not np.isfinite(targets).all():
        raise wrong("inputs or targets are NaN or infinite")
    if row.num_classes is None and targets.dtype.kind == "f":
        return RawData(inputs, targets)
    highest = row.num_classes if row.num_classes is not None else int(targets.max()) + 1
    if targets.dtype.kind == "f" or targets.min() < 0 or targets.max() >= highest:
        raise wrong(f"expected class numbers from 0 to {highest - 1}, got {targets.min():g} to {targets.max():g}")
    return RawData(inputs, targets)


def check_targets(raw: RawData, network: NetworkConfig) -> None:
    """Raise ConfigError if a class number has no output in the network."""
    targets: Any = raw.targets
    if targets.dtype.kind != "f" and targets.max() >= network.output_size:
        raise ConfigError(
            f"network.outputSize: {network.output_size} outputs do not fit {plain(network.dataset)}, which has the "
            f"class {targets.max()}"
        )
