"""Rewinding: a pruned network with the weights of an early epoch instead of those that it was pruned with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute import pruning
from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.metrics.losses import Loss
from luigi_prune.execution.job import Context
from luigi_prune.identity.spec import ChainSpec
from luigi_prune.jobs.inputs import early_network, example_input, read_calibration, read_splits
from luigi_prune.registry import METHODS
from luigi_prune.results.hdf5_file import Result, read_result
from luigi_prune.seeds import derive_seed


def rewound_network(
    request: dict[str, Any],
    spec: ChainSpec,
    before: Result,
    masks: dict[str, Tensor],
    input_shape: Any,
    context: Context,
) -> tuple[nn.Module, dict[str, Tensor], list[dict[str, Any]]]:
    """Return the network of `before`, pruned as it is but with early weights, on the CPU; its masks and its structure.

    Pruned entries (`masks`) stay zero. Decomposed layers get the factors of their early weights, at the same rank,
    groups and folding.
    """
    network = early_network(spec.base, read_result(request["inputs"]["base"]), input_shape)
    structure: list[dict[str, Any]] = before.meta["structure"]
    if not structure:
        apply_masks(network, masks)
        return network, masks, structure
    method, rules = METHODS[spec.method], pruning.find_rules(spec.rules)
    splits = read_splits(spec.base, spec.base.training, request)  # pruning reads data as training does
    network.to(context.device)
    example = example_input(splits.calibration, context.device)
    network, masks, structure = pruning.decompose_like(
        network,
        method,
        structure,
        example_input=example,
        calibration=read_calibration(spec, network, splits, example) if rules.needs_data(method) else None,
        loss=Loss(spec.base.training.loss, spec.base.training.loss_kwargs).to(torch.device(context.device)),
        seed=derive_seed(spec.base.seed, spec.base.net, spec.repetition, "prune", len(spec.steps)),
        rules=rules,
        ignore=spec.ignore_layers,
    )
    return network.to("cpu"), {name: mask.cpu() for name, mask in masks.items()}, structure
