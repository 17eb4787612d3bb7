"""The bridge: one function per task, run by a backend. The only file whose imports stand inside functions.

A job function gets `request` (JSON data: spec, inputs, output, directories) and `context` (threads, device, processes);
it reads its inputs, calls the heavy half and writes one result. `run` turns whatever happens into an Outcome.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luigi_prune import store
from luigi_prune.backends.job import Context, Job, Outcome
from luigi_prune.catalogue import METHODS, metric_label
from luigi_prune.config.schema import Directories, Experiment, TrainingConfig
from luigi_prune.errors import DamagedResult, LuigiPruneError
from luigi_prune.provenance import provenance
from luigi_prune.seeds import derive_seed
from luigi_prune.spec import ChainSpec, EvaluateSpec, ExperimentSpec, TrainSpec, shown_methods
from luigi_prune.targets import Result, read_about, read_result, write_result

if TYPE_CHECKING:
    import torch
    from torch import nn

    from luigi_prune.compute.datasets import Splits
    from luigi_prune.compute.pruning import LayerBudget
    from luigi_prune.compute.training import EpochRecord, TrainResult

log = logging.getLogger("luigi_prune")


def run(job: Job, context: Context) -> Outcome:
    """Run a job in this process and return how it ended; raises nothing but what ends the process itself."""
    began = time.perf_counter()
    try:
        _function(job.function)(job.request, context)
    except DamagedResult as damage:
        return Outcome("damaged", str(damage), damaged=str(damage.path), seconds=time.perf_counter() - began)
    except FileNotFoundError as error:
        if str(error.filename) in _inputs(job.request):  # it went away after the job was started
            return Outcome("damaged", str(error), damaged=str(error.filename), seconds=time.perf_counter() - began)
        return Outcome("failed", traceback.format_exc(), seconds=time.perf_counter() - began)
    except LuigiPruneError as error:
        return Outcome("failed", str(error), seconds=time.perf_counter() - began, retry=False)
    except Exception as error:
        text = traceback.format_exc()
        again = isinstance(error, OSError | MemoryError)  # the same spec fails the same way, a machine need not
        return Outcome("failed", text, seconds=time.perf_counter() - began, retry=again)
    return Outcome("done", seconds=time.perf_counter() - began)


def _function(name: str) -> Any:
    module, _, function = name.rpartition(":")
    return getattr(importlib.import_module(module), function) if module else globals()[name]


def _inputs(request: dict[str, Any]) -> set[str]:
    return {*request.get("inputs", {}).values(), *request.get("cells", {}).values()}


# ------------------------------------------------------------------------------------------------------------- the jobs


def train_base(request: dict[str, Any], context: Context) -> None:
    """Train a network from its seed."""
    spec = TrainSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    _use_threads(context)
    splits = _splits(spec, spec.training, request)
    network = _fresh_network(spec, splits)
    seed = derive_seed(spec.seed, spec.net, "train")
    trained = _train(
        request, context, network, spec.training, splits, seed=seed, base=spec, rewind_epoch=spec.rewind_epoch
    )
    if context.rank:
        return
    arrays, types = _named("weights", trained.state)
    if trained.rewind_state is not None:
        rewind, more = _named("rewind", trained.rewind_state)
        arrays, types = arrays | rewind, types | more
    _write(request, context, began, arrays | _history(trained), meta={"types": types, "structure": []})
    _discard_checkpoint(request)


def prune(request: dict[str, Any], context: Context) -> None:
    """Prune the network of the step before to the last step's keep ratio."""
    from luigi_prune.compute import pruning
    from luigi_prune.compute.losses import Loss

    spec = ChainSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    _use_threads(context)
    method = METHODS[spec.method]
    splits = _splits(spec.base, spec.base.training, request)
    before = read_result(request["inputs"]["network"])
    network, masks = _network_of(before, spec.base, splits)
    example = _example(splits)
    if "original_size" in before.arrays:
        original = int(before.arrays["original_size"]), int(before.arrays["original_flops"])
    else:
        original = pruning.count_size(network), pruning.count_flops(network, example)
    loss = Loss(spec.base.training.loss, spec.base.training.loss_kwargs)
    ratio = spec.keep_ratio
    calibration = None
    if method.needs_data or spec.rules == "reference":
        calibration = _calibration(spec, network, splits, example)
    pruned = pruning.prune(
        network,
        method,
        ratio,
        example_input=example,
        calibration=calibration,
        loss=loss,
        seed=derive_seed(spec.base.seed, spec.base.net, spec.repetition, f"prune {ratio!r}"),
        rules=spec.rules,
        original_size=original[0],
        original_flops=original[1],
        masks=masks,
    )
    context.progress(1.0, f"kept {pruned.size / pruned.original_size:.4g} of {pruned.original_size} parameters")
    arrays, types = _named("weights", pruned.network.state_dict())
    arrays |= {f"masks/{name}": mask.cpu().numpy() for name, mask in pruned.masks.items()}
    arrays |= _layers(pruned.layers, pruned.size, pruned.flops, original)
    _write(request, context, began, arrays, meta={"types": types, "structure": pruned.structure})


def retrain(request: dict[str, Any], context: Context) -> None:
    """Retrain a pruned network; what was removed stays removed."""
    from luigi_prune.compute import pruning

    spec = ChainSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    _use_threads(context)
    splits = _splits(spec.base, spec.retraining, request)
    before = read_result(request["inputs"]["network"])
    network, masks = _network_of(before, spec.base, splits)
    if spec.rewind:
        _rewind(network, masks, read_result(request["inputs"]["base"]))
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
    original = int(before.arrays["original_size"]), int(before.arrays["original_flops"])
    arrays, types = _named("weights", trained.state)
    arrays |= {f"masks/{name}": mask.cpu().numpy() for name, mask in masks.items()}
    size, flops = pruning.count_size(network), pruning.count_flops(network, _example(splits))
    arrays |= _layers(pruning.layer_budgets(network), size, flops, original) | _history(trained)
    _write(request, context, began, arrays, meta={"types": types, "structure": before.meta["structure"]}, earlier=before)
    _discard_checkpoint(request)


def evaluate(request: dict[str, Any], context: Context) -> None:
    """Judge a network on one test set."""
    import torch

    from luigi_prune.compute import datasets, evaluation, pruning

    spec = EvaluateSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    _use_threads(context)
    training, places = spec.base.training, Directories.model_validate_json(request["directories"])
    samples = datasets.load_test(
        spec.test_set, training, training_data=places.training_data, local_data=places.local_data
    )
    splits = _splits(spec.base, training, request)
    before = read_result(request["inputs"]["network"])
    network, _ = _network_of(before, spec.base, splits)
    example = _example(splits)
    size, flops = pruning.count_size(network), pruning.count_flops(network, example)
    original = (size, flops)
    if "original_size" in before.arrays:
        original = int(before.arrays["original_size"]), int(before.arrays["original_flops"])
    arrays = _layers(pruning.layer_budgets(network), size, flops, original)
    judged = evaluation.evaluate(
        network,
        samples,
        loss=training.loss,
        loss_kwargs=training.loss_kwargs,
        metrics=spec.metrics,
        batch_size=training.test_batch_size,
        device=torch.device(context.device),
    )
    arrays |= {name if name == "loss" else f"metrics/{name}": _float(value) for name, value in judged.items()}
    arrays |= {f"history/{name}": array for name, array in before.group("history").items()}
    _write(request, context, began, arrays, meta={"structure": before.meta["structure"]}, earlier=before)


def aggregate(request: dict[str, Any], context: Context) -> None:
    """Gather the evaluations of an experiment into tables."""
    from luigi_prune.analysis.aggregate import aggregate as gather

    spec = ExperimentSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    shape = (spec.num_nets, len(spec.keep_ratios), spec.num_repetitions, len(spec.methods))

    def cells(test_set: str, *index: int) -> Any:
        if len(index) == len(shape):
            return request["cells"]["/".join(map(str, (test_set, *index)))]
        return [cells(test_set, *index, at) for at in range(shape[len(index)])]

    grid = {
        "experiment": spec.name,
        "dataset_train": spec.network.dataset,
        "network": spec.network.name,
        "mode": spec.mode,
        "methods": list(spec.methods),
        "keep_ratios": list(spec.keep_ratios),
        "num_nets": spec.num_nets,
        "num_repetitions": spec.num_repetitions,
        "metrics": [metric_label(metric) for metric in spec.metrics],
        "test_sets": list(spec.test_sets),
        "retraining_epochs": list(spec.retraining_epochs),
        "cells": {test_set: cells(test_set) for test_set in spec.test_sets},
    }
    tables = gather(grid, read_result)
    _write(request, context, began, tables.arrays, meta=tables.meta, measured=tables.measured)


def report(request: dict[str, Any], context: Context) -> None:
    """Draw an experiment's tables."""
    from luigi_prune.report import write_report

    experiment = Experiment.model_validate_json(request["spec"])
    tables = read_result(request["inputs"]["tables"])
    labels, colors = shown_methods(experiment)
    folder = Path(request["output"]).parent
    plotting = experiment.experiments.plotting
    written = write_report(
        tables.arrays,
        tables.meta,
        experiment.model_dump(mode="json", by_alias=True),
        folder,
        key=tables.key,
        measured={name: array for name, array in tables.measured.items() if array.ndim},  # not Aggregate's own
        provenance=tables.provenance,
        plotting={"min_val": plotting.min_val, "max_val": plotting.max_val},
        labels=labels,
        colors=colors,
    )
    context.progress(1.0, f"{len(written)} files")


# ------------------------------------------------------------------------------------------------- what the jobs share


def _use_threads(context: Context) -> None:
    import torch

    torch.set_num_threads(context.threads)


def _splits(base: TrainSpec, training: TrainingConfig, request: dict[str, Any]) -> Splits:
    """Return training and validation data; all jobs of one net split alike."""
    from luigi_prune.compute.datasets import load_splits

    places = Directories.model_validate_json(request["directories"])
    return load_splits(
        base.network,
        training,
        seed=derive_seed(base.seed, base.net, "split"),
        training_data=places.training_data,
        local_data=places.local_data,
    )


def _fresh_network(base: TrainSpec, splits: Splits) -> nn.Module:
    from luigi_prune.compute.networks import build

    seed = derive_seed(base.seed, base.net, "initialise")
    return build(base.network.name, splits.input_shape, base.network.output_size, seed)


def _network_of(result: Result, base: TrainSpec, splits: Splits) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return the network that a result holds, and its masks."""
    import torch

    from luigi_prune.compute.pruning import restore
    from luigi_prune.compute.state import from_arrays

    network = restore(_fresh_network(base, splits), result.meta["structure"])
    types = {name.removeprefix("weights/"): kind for name, kind in result.meta["types"].items()}
    network.load_state_dict(from_arrays(result.group("weights"), types))
    return network, {name: torch.from_numpy(mask) for name, mask in result.group("masks").items()}


def _rewind(network: nn.Module, masks: dict[str, torch.Tensor], base: Result) -> None:
    """Set the network's weights back to those of the epoch that the trained network kept, but for what is removed."""
    import torch

    from luigi_prune.compute.state import from_arrays

    types = {name.removeprefix("rewind/"): kind for name, kind in base.meta["types"].items()}
    network.load_state_dict(from_arrays(base.group("rewind"), types))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in masks:
                parameter.masked_fill_(~masks[name], 0.0)


def _example(splits: Splits) -> torch.Tensor:
    """Return one sample of the network's input, as a batch."""
    inputs, _ = splits.validation.get([0], 0, 0)
    return inputs


def _calibration(spec: ChainSpec, network: nn.Module, splits: Splits, example: torch.Tensor) -> Any:
    """Return the calibration batches: a seeded draw from the validation split, in batches of 4."""
    import torch

    from luigi_prune.compute.pruning import calibration_size

    count = calibration_size(network, example, spec.delta_s, len(splits.validation))
    seed = derive_seed(spec.base.seed, spec.base.net, spec.repetition, "calibration")
    order = torch.randperm(len(splits.validation), generator=torch.Generator().manual_seed(seed))[:count]
    return [splits.validation.get(batch.tolist(), 0, 0) for batch in order.split(4)]


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
    import torch

    from luigi_prune.compute.training import train
    from luigi_prune.compute.training.distributed import close_group, open_group
    from luigi_prune.report.tensorboard import epoch_log

    device = torch.device(context.device)
    parallel = context.world_size > 1
    group = open_group(context.rank, context.world_size, context.init_method, device) if parallel else None
    places = Directories.model_validate_json(request["directories"])
    folder = store.tensorboard_folder(places, base.network, Path(request["output"]))
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
            checkpoint=store.checkpoint_path(request["output"]),
            on_epoch=on_epoch,
            should_stop=context.should_stop,
            device=device,
            process_group=group,
            loader_workers=context.loader_workers,
        )
    finally:
        if parallel:
            close_group()


def _discard_checkpoint(request: dict[str, Any]) -> None:
    store.checkpoint_path(request["output"]).unlink(missing_ok=True)


def _named(group: str, state: Any) -> tuple[dict[str, Any], dict[str, str]]:
    from luigi_prune.compute.state import to_arrays

    arrays, types = to_arrays(state)
    return (
        {f"{group}/{name}": array for name, array in arrays.items()},
        {f"{group}/{name}": kind for name, kind in types.items()},
    )


def _history(trained: TrainResult) -> dict[str, Any]:
    return {f"history/{name}": array for name, array in trained.history.items()}


def _layers(layers: list[LayerBudget], size: int, flops: int, original: tuple[int, int]) -> dict[str, Any]:
    import numpy as np

    return {
        "layers/name": np.array([layer.name for layer in layers], dtype=str),
        "layers/kept": np.array([layer.kept for layer in layers], dtype=np.int64),
        "layers/total": np.array([layer.total for layer in layers], dtype=np.int64),
        "size": np.int64(size),
        "flops": np.int64(flops),
        "original_size": np.int64(original[0]),
        "original_flops": np.int64(original[1]),
    }


def _float(value: float) -> Any:
    import numpy as np

    return np.float64(value)


def _write(
    request: dict[str, Any],
    context: Context,
    began: float,
    arrays: dict[str, Any],
    *,
    meta: dict[str, Any],
    measured: dict[str, Any] | None = None,
    earlier: Result | None = None,
) -> None:
    """Write the job's result, with what it measured and where it came from."""
    family = str(request["family"]).lower()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    own = {f"{family}_seconds": time.perf_counter() - began, f"{family}_peak_bytes": peak}
    folder = Path(request["output"]).parent
    parents = {name: _about(path, folder) for name, path in request["inputs"].items()}
    write_result(
        request["output"],
        family=request["family"],
        key=request["key"],
        spec=json.loads(request["spec"]),
        provenance=provenance(
            job=context.job_id,
            threads=context.threads,
            processes=context.world_size,
            device=context.device,
            parents=parents,
        ),
        arrays=arrays,
        meta=meta,
        measured={**(earlier.measured if earlier else {}), **(measured or {}), **own},
    )


def _about(path: str, folder: Path) -> dict[str, str]:
    """Return what identifies an input; its path is relative, so that a store can be moved."""
    about = read_about(path)
    return {"path": os.path.relpath(path, folder), "key": about["key"], "content_sha256": about["content_sha256"]}
