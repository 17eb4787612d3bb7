"""Retrain: train a pruned network; pruned entries stay zero."""

from __future__ import annotations

import time
from typing import Any

from luigi_prune.compute.state import load_state
from luigi_prune.compute.training import Training, TrainResult, discard
from luigi_prune.execution.job import Context
from luigi_prune.identity import paths
from luigi_prune.identity.spec import ChainSpec
from luigi_prune.jobs.inputs import SplitsReader, example_input, read_splits, restore_network
from luigi_prune.jobs.logged_training import PreparedTraining, train_logged
from luigi_prune.jobs.outputs import write
from luigi_prune.jobs.process import prepare_process
from luigi_prune.jobs.result_arrays import cost_arrays, history_arrays, mask_arrays, state_arrays
from luigi_prune.jobs.rewinding import rewound_network
from luigi_prune.results.hdf5_file import read_result
from luigi_prune.seeds import derive_seed


def retrain(request: dict[str, Any], context: Context) -> None:
    """Retrain a pruned network; pruned entries stay zero."""
    began = time.perf_counter()
    prepare_process(context)
    train_logged(prepare_retraining(request, context), began)


def prepare_retraining(request: dict[str, Any], context: Context, read: SplitsReader = read_splits) -> PreparedTraining:
    """Return the retraining of a pruned network, of which pruned entries stay zero."""
    spec = ChainSpec.model_validate_json(request["spec"])
    splits = read(spec.base, spec.retraining, request)
    before = read_result(request["inputs"]["network"])
    network, masks = restore_network(before, spec.base, splits.input_shape)
    structure = before.meta["structure"]
    if spec.rewind:
        network, masks, structure = rewound_network(request, spec, before, masks, splits.input_shape, context)

    def finish(trained: TrainResult, began: float) -> None:
        load_state(network, trained.state)
        arrays, types = state_arrays("weights", trained.state)
        arrays |= mask_arrays(masks)
        network.to(context.device)  # already there, unless no epoch was trained
        arrays |= cost_arrays(network, masks, before, example_input(splits.validation, context.device))
        arrays |= history_arrays(trained, splits.validation)
        meta = {"types": types, "structure": structure}
        write(request, context, began, arrays, meta=meta, earlier=before, precision=trained.precision)
        discard(paths.checkpoint_path(request["output"]))

    return PreparedTraining(
        request,
        context,
        spec.base,
        spec.retraining.model_copy(update={"metrics_test": spec.base.training.metrics_test}),
        Training(network, splits, retraining_seed(spec), masks, spec.retraining.start_epoch),
        finish,
    )


def retraining_seed(spec: ChainSpec) -> int:
    """Return the seed of a step's order of samples and their transforms: the same for all methods, another per step."""
    earlier = sum(step.retrained for step in spec.steps[:-1])
    parts = (spec.base.seed, spec.base.net, spec.repetition, "retrain")
    return derive_seed(*parts, earlier) if earlier else derive_seed(*parts)
