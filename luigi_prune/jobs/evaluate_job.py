"""Evaluate: loss, metrics and costs of one network on one test set."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from luigi_prune.compute import data
from luigi_prune.compute.data import Samples
from luigi_prune.compute.metrics import evaluation
from luigi_prune.compute.metrics.class_quality import ClassQuality
from luigi_prune.compute.network_inputs import sample_shape
from luigi_prune.config.schema import Directories
from luigi_prune.errors import LuigiPruneError
from luigi_prune.execution.job import Context
from luigi_prune.identity.spec import EvaluateSpec
from luigi_prune.jobs.inputs import example_input, restore_network
from luigi_prune.jobs.network_latency import measured_latency
from luigi_prune.jobs.outputs import write
from luigi_prune.jobs.process import prepare_process
from luigi_prune.jobs.result_arrays import cost_arrays
from luigi_prune.results.hdf5_file import Result, read_result

log = logging.getLogger("luigi_prune")


def evaluate(request: dict[str, Any], context: Context) -> None:
    """Evaluate a network on one test set; a retrained one also as it was before retraining.

    `before/<metric>` and `before/loss` are those of the pruned network, if its file still exists. `samples` is the size
    of the test set; `calibration_error` and `classes/...` are there for classifiers.
    """
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
    classes = ClassQuality()
    values = _measured(network, samples, spec, context, classes)
    arrays |= values | classes.arrays() | {"samples": np.int64(len(samples))}
    if (pruned := _before_retraining(before, request["inputs"]["network"])) is not None:
        if len(before.arrays.get("history/epoch", ())) or (spec.chain is not None and spec.chain.rewind):
            network, _ = restore_network(pruned, spec.base, sample_shape(example), context.device)
            values = _measured(network, samples, spec, context)
        arrays |= {f"before/{name.removeprefix('metrics/')}": value for name, value in values.items()}
    arrays |= {f"history/{name}": array for name, array in before.group("history").items()}
    latency = measured_latency(before, spec.base, example, context) if spec.latency else {}
    meta = {"structure": before.meta["structure"]}
    write(request, context, began, arrays, meta=meta, measured=latency, earlier=before)


def _measured(
    network: nn.Module, samples: Samples, spec: EvaluateSpec, context: Context, classes: ClassQuality | None = None
) -> dict[str, Any]:
    """Return `loss` and `metrics/<label>` of a network."""
    training = spec.base.training
    values = evaluation.evaluate(
        network,
        samples,
        loss=training.loss,
        loss_kwargs=training.loss_kwargs,
        metrics=spec.metrics,
        batch_size=training.test_batch_size,
        device=torch.device(context.device),
        classes=classes,
    )
    return {name if name == "loss" else f"metrics/{name}": np.float64(value) for name, value in values.items()}


def _before_retraining(retrained: Result, path: str) -> Result | None:
    """Return the pruned network that a retrained one was made from, None if it was not retrained or the file is lost.

    It is no input of the task: an evaluation must not prune again only because somebody has deleted pruned networks.
    """
    parent = retrained.provenance.get("parents", {}).get("network")
    if retrained.family != "Retrain" or parent is None:
        return None
    source = Path(path).parent / parent["path"]
    try:
        pruned = read_result(source)
    except (OSError, LuigiPruneError) as error:
        log.warning(f"the quality before retraining is not measured: {source.name} cannot be read ({error})")
        return None
    return pruned if pruned.key == parent["key"] else None
