"""A pruned network of `luigi_prune.api` as a result file: HDF5, checked byte by byte, nothing pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from luigi_prune.errors import ConfigError
from luigi_prune.provenance import provenance
from luigi_prune.targets import content_sha256, read_about, read_result, write_result

FAMILY = "Pruned"
_NUMBERS = ("size", "flops", "original_size", "original_flops")


@dataclass(frozen=True, eq=False)
class PrunedFile:
    """What stands in the file: the arrays of the state dict, with the types that numpy lacks, the masks and the rest.

    `numbers`: size, flops, original_size and original_flops, without those that are not known. `layers`: name, kept,
    total of every compressible layer. `structure`: what rebuilds decomposed layers.
    """

    method: str
    wanted: float
    weights: Mapping[str, np.ndarray]
    types: Mapping[str, str]
    masks: Mapping[str, np.ndarray]
    numbers: Mapping[str, int]
    layers: list[tuple[str, int, int]]
    structure: list[dict[str, Any]]


def write(path: str | Path, content: PrunedFile) -> None:
    """Write a pruned network; raises ConfigError where another result stands there already."""
    arrays = {f"weights/{name}": array for name, array in content.weights.items()}
    arrays |= {f"masks/{name}": array for name, array in content.masks.items()}
    arrays["layers/name"] = np.array([name for name, _, _ in content.layers], dtype=str)
    arrays["layers/kept"] = np.array([kept for _, kept, _ in content.layers], dtype=np.int64)
    arrays["layers/total"] = np.array([total for _, _, total in content.layers], dtype=np.int64)
    arrays |= {name: np.asarray(number, dtype=np.int64) for name, number in content.numbers.items()}
    meta = {"types": dict(content.types), "structure": content.structure}
    spec = {"method": content.method, "keep_ratio": content.wanted}
    key = content_sha256(arrays, meta | spec)
    about: dict[str, Any] = {"family": FAMILY, "key": key, "spec": spec, "provenance": provenance(), "meta": meta}
    if not write_result(path, arrays=arrays, **about) and read_about(path)["key"] != key:
        raise ConfigError(f"{path}: another result stands there already, and results are never overwritten")


def read(path: str | Path) -> PrunedFile:
    """Return what `write` wrote. Raises FileNotFoundError, DamagedResult, ConfigError."""
    result = read_result(path)
    if result.family != FAMILY:
        raise ConfigError(f"{path}: holds a {result.family!r} result, not a network that `Pruned.save` wrote")
    columns = [result.arrays[f"layers/{name}"].tolist() for name in ("name", "kept", "total")]
    return PrunedFile(
        method=result.spec["method"],
        wanted=result.spec["keep_ratio"],
        weights=result.group("weights"),
        types=result.meta["types"],
        masks=result.group("masks"),
        numbers={name: int(result.arrays[name]) for name in _NUMBERS if name in result.arrays},
        layers=list(zip(*columns, strict=True)),
        structure=result.meta["structure"],
    )
