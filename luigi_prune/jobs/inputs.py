"""Inputs of job functions: data splits, networks read from results, calibration batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute import data, networks, pruning
from luigi_prune.compute.data import Samples, Splits
from luigi_prune.compute.network_inputs import Inputs, to_device
from luigi_prune.compute.state import from_arrays, load_state
from luigi_prune.config.schema import Directories, TrainingConfig
from luigi_prune.identity.spec import ChainSpec, TrainSpec
from luigi_prune.results.hdf5_file import Result
from luigi_prune.seeds import derive_seed

SplitsReader = Callable[[TrainSpec, TrainingConfig, dict[str, Any]], Splits]
"""`read_splits`, or a function that reads less often."""

_EXAMPLES = 8  # enough for pruning to compare outputs on


def read_splits(base: TrainSpec, training: TrainingConfig, request: dict[str, Any]) -> Splits:
    """Return training, validation and calibration data; all jobs of one net use the same split."""
    directories = Directories.model_validate_json(request["directories"])
    return data.load_splits(
        base.network,
        training,
        seed=derive_seed(base.seed, base.net, "split"),
        training_data=directories.training_data,
        local_data=directories.local_data,
    )


def initial_network(base: TrainSpec, input_shape: Any, seed: int | None = None) -> nn.Module:
    """Return the network as initialised from its seed, or from another one, before training."""
    seed = derive_seed(base.seed, base.net, "initialise") if seed is None else seed
    return networks.build(base.network.name, input_shape, base.network.output_size, seed, base.network.kwargs)


def restore_network(
    result: Result, base: TrainSpec, input_shape: Any, device: str = "cpu"
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the network stored in a result, on `device`, and its masks, on the CPU."""
    network = pruning.restore(initial_network(base, input_shape), result.meta["structure"])
    types = {name.removeprefix("weights/"): kind for name, kind in result.meta["types"].items()}
    load_state(network, from_arrays(result.group("weights"), types))
    return network.to(device), {name: torch.from_numpy(mask) for name, mask in result.group("masks").items()}


def early_network(base: TrainSpec, trained: Result, input_shape: Any) -> nn.Module:
    """Return the unpruned network with the weights of the epoch that the trained network stores for rewinding."""
    network = initial_network(base, input_shape)
    types = {name.removeprefix("rewind/"): kind for name, kind in trained.meta["types"].items()}
    load_state(network, from_arrays(trained.group("rewind"), types))
    return network


def example_input(samples: Samples, device: str = "cpu") -> Inputs:
    """Return the first few inputs as one batch on `device`."""
    inputs, _ = samples.get(list(range(min(_EXAMPLES, len(samples)))), 0, 0)
    return to_device(inputs, device)  # samples may be on another device, depending on free memory


def original_cost(before: Result, network: nn.Module, example: Inputs) -> tuple[int, int]:
    """Return size and FLOPs of the unpruned network: as stored in `before`, else those of `network`, then unpruned."""
    if "original_size" in before.arrays:
        return int(before.arrays["original_size"]), int(before.arrays["original_flops"])
    return pruning.count_size(network), pruning.count_flops(network, example)


def read_calibration(spec: ChainSpec, network: nn.Module, splits: Splits, example: Inputs) -> Any:
    """Return the calibration batches, 4 samples each, drawn by seed from the samples that judge no network."""
    held_out = len(splits.validation) + len(splits.calibration)
    count = pruning.calibration_size(network, example, spec.delta_s, held_out)
    seed = derive_seed(spec.base.seed, spec.base.net, spec.repetition, "calibration")
    order = torch.randperm(len(splits.calibration), generator=torch.Generator().manual_seed(seed))[:count]
    return [splits.calibration.get(batch.tolist(), 0, 0) for batch in order.split(4)]
