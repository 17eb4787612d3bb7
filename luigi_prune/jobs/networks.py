"""The jobs that make networks: TrainBase, Prune, Retrain, Evaluate."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from luigi_prune.compute import data, pruning
from luigi_prune.compute.data import Splits
from luigi_prune.compute.distributed import close_group, open_group
from luigi_prune.compute.metrics import evaluation
from luigi_prune.compute.metrics.losses import Loss
from luigi_prune.compute.pruning import LayerBudget
from luigi_prune.compute.state import to_arrays
from luigi_prune.compute.training import EpochRecord, TrainResult, discard, train
from luigi_prune.config.schema import Directories, TrainingConfig
from luigi_prune.execution.job import Context
from luigi_prune.identity import paths
from luigi_prune.identity.spec import ChainSpec, EvaluateSpec, TrainSpec
from luigi_prune.jobs.inputs import (
    calibration_batches,
    example_input,
    fresh_network,
    network_of,
    original_cost,
    read_splits,
    rewind,
)
from luigi_prune.jobs.outputs import write
from luigi_prune.jobs.process import prepare_process
from luigi_prune.jobs.score_cache import remember_scores
from luigi_prune.registry import METHODS, metric_label
from luigi_prune.report.tensorboard import epoch_log
from luigi_prune.results.hdf5_file import Result, read_result
from luigi_prune.seeds import derive_seed

log = logging.getLogger("luigi_prune")


# ------------------------------------------------------------------------------------------------------------- the jobs


def train_base(request: dict[str, Any], context: Context) -> None:
    """Train a network from its seed."""
    spec = TrainSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    prepare_process(context)
    splits = read_splits(spec, spec.training, request)
    network = fresh_network(spec, splits.input_shape)
    seed = derive_seed(spec.seed, spec.net, "train")
    trained = _train(
        request, context, network, spec.training, splits, seed=seed, base=spec, rewind_epoch=spec.rewind_epoch
    )
    if context.rank:
        return
    arrays, types = _named("weights", trained.state)
    if trained.rewind_state is not None:
        early, more = _named("rewind", trained.rewind_state)
        arrays, types = arrays | early, types | more
    arrays |= _history(trained)
    meta = {"types": types, "structure": []}
    write(request, context, began, arrays, meta=meta, precision=trained.precision)
    discard(paths.checkpoint_path(request["output"]))


def prune(request: dict[str, Any], context: Context) -> None:
    """Prune the network of the step before to the last step's keep ratio."""
    spec = ChainSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    prepare_process(context)
    method = METHODS[spec.method]
    splits = read_splits(spec.base, spec.base.training, request)
    before = read_result(request["inputs"]["network"])
    network, masks = network_of(before, spec.base, splits.input_shape, context.device)
    example = example_input(splits.validation, context.device)
    original = original_cost(before, network, example)
    calibration = None
    rules = pruning.find_rules(spec.rules)
    if rules.needs_data(method):
        calibration = calibration_batches(spec, network, splits, example)
    pruned = pruning.prune(
        network,
        method,
        spec.keep_ratio,
        example_input=example,
        calibration=calibration,
        loss=Loss(spec.base.training.loss, spec.base.training.loss_kwargs).to(torch.device(context.device)),
        # the same for every ratio of one-shot mode, so that scores which draw serve all of them
        seed=derive_seed(spec.base.seed, spec.base.net, spec.repetition, "prune", len(spec.steps)),
        rules=rules,
        original_size=original[0],
        original_flops=original[1],
        masks=masks,
        delta_s=spec.delta_s,
        ignore=spec.ignore_layers,
        original=_original(request, spec, splits.input_shape, context.device),
        remember=remember_scores(request, spec, context),
    )
    for text in pruned.warnings:
        log.warning(text)
    context.progress(1.0, f"kept {pruned.size / pruned.original_size:.4g} of {pruned.original_size} parameters")
    arrays, types = _named("weights", pruned.network.state_dict())
    arrays |= {f"masks/{name}": mask.cpu().numpy() for name, mask in pruned.masks.items()}
    assert pruned.flops is not None
    arrays |= _layers(pruned.layers, pruned.size, pruned.flops, original)
    arrays |= _errors(pruned.layers, pruned.structure)
    write(request, context, began, arrays, meta={"types": types, "structure": pruned.structure})


def retrain(request: dict[str, Any], context: Context) -> None:
    """Retrain a pruned network; what was removed stays removed."""
    spec = ChainSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    prepare_process(context)
    splits = read_splits(spec.base, spec.retraining, request)
    before = read_result(request["inputs"]["network"])
    network, masks = network_of(before, spec.base, splits.input_shape)
    if spec.rewind:
        rewind(network, masks, read_result(request["inputs"]["base"]))
    trained = _train(
        request,
        context,
        network,
        spec.retraining.model_copy(update={"metrics_test": spec.base.training.metrics_test}),
        splits,
        seed=derive_seed(spec.base.seed, spec.base.net, spec.repetition, "retrain"),
        base=spec.base,
        start_epoch=spec.retraining.start_epoch,
        masks=masks,
    )
    if context.rank:
        return
    network.load_state_dict(trained.state)
    arrays, types = _named("weights", trained.state)
    arrays |= {f"masks/{name}": mask.cpu().numpy() for name, mask in masks.items()}
    network.to(context.device)  # where training left it, unless no epoch was trained
    arrays |= _cost(network, before, example_input(splits.validation, context.device)) | _history(trained)
    meta = {"types": types, "structure": before.meta["structure"]}
    write(request, context, began, arrays, meta=meta, earlier=before, precision=trained.precision)
    discard(paths.checkpoint_path(request["output"]))


def evaluate(request: dict[str, Any], context: Context) -> None:
    """Judge a network on one test set."""
    spec = EvaluateSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    prepare_process(context)
    training, places = spec.base.training, Directories.model_validate_json(request["directories"])
    samples = data.load_test(spec.test_set, training, training_data=places.training_data, local_data=places.local_data)
    example = example_input(samples, context.device)
    before = read_result(request["inputs"]["network"])
    network, _ = network_of(before, spec.base, tuple(example.shape[1:]), context.device)
    arrays = _cost(network, before, example)
    judged = evaluation.evaluate(
        network,
        samples,
        loss=training.loss,
        loss_kwargs=training.loss_kwargs,
        metrics=spec.metrics,
        batch_size=training.test_batch_size,
        device=torch.device(context.device),
    )
    arrays |= {name if name == "loss" else f"metrics/{name}": np.float64(value) for name, value in judged.items()}
    arrays |= {f"history/{name}": array for name, array in before.group("history").items()}
    write(request, context, began, arrays, meta={"structure": before.meta["structure"]}, earlier=before)


# ------------------------------------------------------------------------------------------------- what the jobs share


def _train(
    request: dict[str, Any],
    context: Context,
    network: nn.Module,
    training: TrainingConfig,
    splits: Splits,
    *,
    seed: int,
    base: TrainSpec,
    start_epoch: int = 0,
    masks: dict[str, torch.Tensor] | None = None,
    rewind_epoch: int | None = None,
) -> TrainResult:
    """Train with this job's processes, telling epochs to the terminal, the log and TensorBoard."""
    device = torch.device(context.device)
    parallel = context.world_size > 1
    group = open_group(context.rank, context.world_size, context.init_method, device) if parallel else None
    places = Directories.model_validate_json(request["directories"])
    folder = paths.tensorboard_folder(places, base.network, Path(request["output"]))
    tell = epoch_log(folder) if context.rank == 0 and training.num_epochs > start_epoch else None

    def on_epoch(record: EpochRecord) -> None:
        if context.rank or tell is None:
            return
        scalars = {
            "learning_rate": record.learning_rate,
            "train/loss": record.train_loss,
            "validation/loss": record.validation_loss,
            **{f"train/{name}": value for name, value in record.train.items()},
            **{f"validation/{name}": value for name, value in record.validation.items()},
        }
        tell(record.epoch, scalars)
        text = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        log.info("epoch %d/%d: %s", record.epoch + 1, training.num_epochs, text)
        done = (record.epoch + 1 - start_epoch) / (training.num_epochs - start_epoch)
        label = metric_label(training.metrics_test[0])
        shown = f"validation {label} {scalars[f'validation/{label}']:.4f}"
        context.progress(done, f"epoch {record.epoch + 1}/{training.num_epochs}, {shown}")

    try:
        return train(
            network,
            training,
            splits,
            seed=seed,
            start_epoch=start_epoch,
            masks=masks,
            rewind_epoch=rewind_epoch,
            checkpoint=paths.checkpoint_path(request["output"]),
            on_epoch=on_epoch,
            should_stop=context.should_stop,
            device=device,
            process_group=group,
            loader_workers=context.loader_workers,
        )
    finally:
        if parallel:
            close_group()


def _named(group: str, state: Any) -> tuple[dict[str, Any], dict[str, str]]:
    arrays, types = to_arrays(state)
    return (
        {f"{group}/{name}": array for name, array in arrays.items()},
        {f"{group}/{name}": kind for name, kind in types.items()},
    )


def _history(trained: TrainResult) -> dict[str, Any]:
    return {f"history/{name}": array for name, array in trained.history.items()}


def _original(request: dict[str, Any], spec: ChainSpec, input_shape: tuple[int, ...], device: str) -> nn.Module | None:
    """Return the trained network, where the method wants it at every step of a cascade."""
    if "base" not in request["inputs"]:
        return None
    return network_of(read_result(request["inputs"]["base"]), spec.base, input_shape, device)[0]


def _cost(network: nn.Module, before: Result, example: torch.Tensor) -> dict[str, Any]:
    size, flops = pruning.count_size(network), pruning.count_flops(network, example)
    return _layers(pruning.layer_budgets(network), size, flops, original_cost(before, network, example))


def _layers(layers: Sequence[LayerBudget], size: int, flops: int, original: tuple[int, int]) -> dict[str, Any]:
    return {
        "layers/name": np.array([layer.name for layer in layers], dtype=str),
        "layers/kept": np.array([layer.kept for layer in layers], dtype=np.int64),
        "layers/total": np.array([layer.total for layer in layers], dtype=np.int64),
        "size": np.int64(size),
        "flops": np.int64(flops),
        "original_size": np.int64(original[0]),
        "original_flops": np.int64(original[1]),
    }


def _errors(layers: Sequence[LayerBudget], structure: list[dict[str, Any]]) -> dict[str, Any]:
    """Return per layer what its decomposition lost, estimated and truly (NaN: unknown); nothing without decompositions.

    0 where the layer was left as it is.
    """
    if not structure:
        return {}
    entries = {entry["layer"]: entry for entry in structure}
    arrays = {}
    for name in ("error_estimate", "error_operator"):
        found = [entries[layer.name].get(name) if layer.name in entries else 0.0 for layer in layers]
        arrays[f"layers/{name}"] = np.array([np.nan if value is None else value for value in found], dtype=np.float64)
    return arrays
