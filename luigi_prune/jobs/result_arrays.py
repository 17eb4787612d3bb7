"""Arrays of a result, by their names in the HDF5 file: state, training history, budgets, costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from luigi_prune.compute import pruning
from luigi_prune.compute.data import Samples
from luigi_prune.compute.network_inputs import Inputs
from luigi_prune.compute.pruning import LayerBudget
from luigi_prune.compute.state import to_arrays
from luigi_prune.compute.training import TrainResult
from luigi_prune.jobs.inputs import original_cost
from luigi_prune.results.hdf5_file import Result


def state_arrays(group: str, state: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the arrays of a state_dict as `<group>/<name>`, and the types that numpy lacks by the same names."""
    arrays, types = to_arrays(state)
    return (
        {f"{group}/{name}": array for name, array in arrays.items()},
        {f"{group}/{name}": kind for name, kind in types.items()},
    )


def mask_arrays(masks: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return masks as `masks/<parameter>`."""
    return {f"masks/{name}": mask.cpu().numpy() for name, mask in masks.items()}


def history_arrays(trained: TrainResult, validation: Samples) -> dict[str, Any]:
    """Return the values per epoch as `history/<name>`, and `history/validation_samples`, how many they are means of."""
    arrays: dict[str, Any] = {f"history/{name}": array for name, array in trained.history.items()}
    return arrays | {"history/validation_samples": np.int64(len(validation))}


def cost_arrays(network: nn.Module, masks: dict[str, torch.Tensor], before: Result, example: Inputs) -> dict[str, Any]:
    """Return size, FLOPs and layer budgets of a network with `masks`, made from the result `before`, measured now."""
    size, flops = pruning.count_size(network, masks), pruning.count_flops(network, example, masks)
    return budget_arrays(pruning.layer_budgets(network, masks), size, flops, original_cost(before, network, example))


def budget_arrays(layers: Sequence[LayerBudget], size: int, flops: int, original: tuple[int, int]) -> dict[str, Any]:
    """Return layer budgets, size and FLOPs; `original`: size and FLOPs of the unpruned network."""
    return {
        "layers/name": np.array([layer.name for layer in layers], dtype=str),
        "layers/kept": np.array([layer.kept for layer in layers], dtype=np.int64),
        "layers/total": np.array([layer.total for layer in layers], dtype=np.int64),
        "size": np.int64(size),
        "flops": np.int64(flops),
        "original_size": np.int64(original[0]),
        "original_flops": np.int64(original[1]),
    }


def error_arrays(layers: Sequence[LayerBudget], structure: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the estimated and the actual error of each layer's decomposition; {} without decompositions.

    NaN: unknown. 0: the layer is not decomposed.
    """
    if not structure:
        return {}
    entries = {entry["layer"]: entry for entry in structure}
    arrays = {}
    for name in ("error_estimate", "error_operator"):
        errors = [entries[layer.name].get(name) if layer.name in entries else 0.0 for layer in layers]
        arrays[f"layers/{name}"] = np.array([np.nan if error is None else error for error in errors], dtype=np.float64)
    return arrays
