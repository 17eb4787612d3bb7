"""Prune: one step of a chain, from the network before to the step's keep ratio."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from torch import nn

from luigi_prune.compute import pruning
from luigi_prune.compute.metrics.losses import Loss
from luigi_prune.execution.job import Context
from luigi_prune.identity.spec import ChainSpec
from luigi_prune.jobs.inputs import (
    example_input,
    initial_network,
    original_cost,
    read_calibration,
    read_splits,
    restore_network,
)
from luigi_prune.jobs.outputs import write
from luigi_prune.jobs.process import prepare_process
from luigi_prune.jobs.result_arrays import budget_arrays, error_arrays, mask_arrays, state_arrays
from luigi_prune.jobs.score_cache import remember_scores
from luigi_prune.registry import METHODS, plain
from luigi_prune.results.hdf5_file import read_result
from luigi_prune.seeds import derive_seed

log = logging.getLogger("luigi_prune")


def prune(request: dict[str, Any], context: Context) -> None:
    """Prune the network of the previous step to the last step's keep ratio."""
    spec = ChainSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    prepare_process(context)
    method = METHODS[spec.method]
    splits = read_splits(spec.base, spec.base.training, request)
    before = read_result(request["inputs"]["network"])
    network, masks = restore_network(before, spec.base, splits.input_shape, context.device)
    example = example_input(splits.calibration, context.device)
    original = original_cost(before, network, example)
    rules = pruning.find_rules(spec.rules)
    # Drawn as networks are initialised before training, from a seed per repetition.
    fresh_seed = derive_seed(spec.base.seed, spec.base.net, spec.repetition, "scratch", len(spec.steps))
    pruned = pruning.prune(
        network,
        method,
        spec.keep_ratio,
        example_input=example,
        calibration=read_calibration(spec, network, splits, example) if rules.needs_data(method) else None,
        loss=Loss(spec.base.training.loss, spec.base.training.loss_kwargs).to(torch.device(context.device)),
        # the same for all ratios of one-shot mode, so that they can share scores that are drawn
        seed=derive_seed(spec.base.seed, spec.base.net, spec.repetition, "prune", len(spec.steps)),
        rules=rules,
        original_size=original[0],
        original_flops=original[1],
        masks=masks,
        delta_s=spec.delta_s,
        ignore=spec.ignore_layers,
        include=spec.include_layers,
        original=_original_network(request, spec, splits.input_shape, context.device),
        initialise=lambda _: initial_network(spec.base, splits.input_shape, fresh_seed),
        remember=remember_scores(request, spec, context),
    )
    for text in pruned.warnings:
        log.warning(f"{plain(spec.base.network.name)}: {text}")  # a run may have several networks
    context.progress(1.0, f"kept {pruned.size / pruned.original_size:.4g} of {pruned.original_size} parameters")
    arrays, types = state_arrays("weights", pruned.network.state_dict())
    arrays |= mask_arrays(pruned.masks)
    assert pruned.flops is not None
    arrays |= budget_arrays(pruned.layers, pruned.size, pruned.flops, original)
    arrays |= error_arrays(pruned.layers, pruned.structure)
    write(request, context, began, arrays, meta={"types": types, "structure": pruned.structure})


def _original_network(request: dict[str, Any], spec: ChainSpec, input_shape: Any, device: str) -> nn.Module | None:
    """Return the trained network if the method prunes it at every step of a cascade, else None."""
    if "base" not in request["inputs"]:
        return None
    return restore_network(read_result(request["inputs"]["base"]), spec.base, input_shape, device)[0]
