"""Evaluate: loss, metrics and costs of one network on one test set."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from luigi_prune.compute import data
from luigi_prune.compute.metrics import evaluation
from luigi_prune.compute.network_inputs import sample_shape
from luigi_prune.config.schema import Directories
from luigi_prune.execution.job import Context
from luigi_prune.identity.spec import EvaluateSpec
from luigi_prune.jobs.inputs import example_input, restore_network
from luigi_prune.jobs.outputs import write
from luigi_prune.jobs.process import prepare_process
from luigi_prune.jobs.result_arrays import cost_arrays
from luigi_prune.results.hdf5_file import read_result


def evaluate(request: dict[str, Any], context: Context) -> None:
    """Evaluate a network on one test set."""
    spec = EvaluateSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    prepare_process(context)
    training, directories = spec.base.training, Directories.model_validate_json(request["directories"])
    samples = data.load_test(
        spec.test_set, training, training_data=directories.training_data, local_data=directories.local_data
    )
    example = example_input(samples, context.device)
    before = read_result(request["inputs"]["network"])
    network, masks = restore_network(before, spec.base, sample_shape(example), context.device)
    arrays = cost_arrays(network, masks, before, example)
    values = evaluation.evaluate(
        network,
        samples,
        loss=training.loss,
        loss_kwargs=training.loss_kwargs,
        metrics=spec.metrics,
        batch_size=training.test_batch_size,
        device=torch.device(context.device),
    )
    arrays |= {name if name == "loss" else f"metrics/{name}": np.float64(value) for name, value in values.items()}
    arrays |= {f"history/{name}": array for name, array in before.group("history").items()}
    write(request, context, began, arrays, meta={"structure": before.meta["structure"]}, earlier=before)
