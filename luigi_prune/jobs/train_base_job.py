"""TrainBase: train a network from its seed."""

from __future__ import annotations

import time
from typing import Any

from luigi_prune.compute import networks
from luigi_prune.compute.training import Training, TrainResult, discard
from luigi_prune.execution.job import Context
from luigi_prune.identity import paths
from luigi_prune.identity.spec import TrainSpec
from luigi_prune.jobs.inputs import SplitsReader, initial_network, read_splits
from luigi_prune.jobs.logged_training import PreparedTraining, train_logged
from luigi_prune.jobs.outputs import write
from luigi_prune.jobs.process import prepare_process
from luigi_prune.jobs.result_arrays import history_arrays, state_arrays
from luigi_prune.seeds import derive_seed


def train_base(request: dict[str, Any], context: Context) -> None:
    """Train a network from its seed."""
    began = time.perf_counter()
    prepare_process(context)
    train_logged(prepare_training(request, context), began)


def prepare_training(request: dict[str, Any], context: Context, read: SplitsReader = read_splits) -> PreparedTraining:
    """Return the training of a network from its seed."""
    spec = TrainSpec.model_validate_json(request["spec"])
    splits = read(spec, spec.training, request)
    network = initial_network(spec, splits.input_shape)
    if spec.network.weights:
        networks.load_weights(network, spec.network.weights, spec.network.new_layers)

    def finish(trained: TrainResult, began: float) -> None:
        arrays, types = state_arrays("weights", trained.state)
        if trained.rewind_state is not None:
            rewind_arrays, rewind_types = state_arrays("rewind", trained.rewind_state)
            arrays, types = arrays | rewind_arrays, types | rewind_types
        arrays |= history_arrays(trained, splits.validation)
        meta = {"types": types, "structure": []}
        write(request, context, began, arrays, meta=meta, precision=trained.precision)
        discard(paths.checkpoint_path(request["output"]))

    seed = derive_seed(spec.seed, spec.net, "train")
    training = Training(network, splits, seed, rewind_epoch=spec.rewind_epoch)
    return PreparedTraining(request, context, spec, spec.training, training, finish)
