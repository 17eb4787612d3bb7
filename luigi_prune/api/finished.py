"""Networks out of the results of an experiment, with all that is needed to use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from luigi_prune import registry
from luigi_prune.api.mask_hooks import hold
from luigi_prune.api.pruned import Pruned, pruned_layers
from luigi_prune.compute import data, pruning
from luigi_prune.compute.data import Samples
from luigi_prune.compute.data.transforms import build_transform
from luigi_prune.compute.metrics import evaluation
from luigi_prune.compute.network_inputs import Inputs, sample_shape, select
from luigi_prune.config.schema import Directories, TrainingConfig
from luigi_prune.errors import ConfigError
from luigi_prune.identity.spec import REFERENCE, ChainSpec, EvaluateSpec, TrainSpec
from luigi_prune.jobs.inputs import example_input, restore_network
from luigi_prune.registry.dataset_families import SYNTHETIC
from luigi_prune.results.hdf5_file import Result, read_about, read_result

NETWORKS = ("TrainBase", "Prune", "Retrain")


@dataclass(kw_only=True)
class FinishedNetwork(Pruned):
    """A network of an experiment: what `api.prune` returns, and where it comes from.

    `family`: TrainBase (not pruned), Prune or Retrain. `base` and `chain`: its settings and steps; `chain` is None for
    a trained network. `quality`: test set -> loss and metrics, as evaluated by the experiment. `transforms`: the test
    transforms, from an image of the data set to an input of the network, in order. `classes`: the number of outputs.
    `example_input`: a batch of random samples in the form of the data set's, after these transforms.
    """

    path: Path
    family: str
    base: TrainSpec = field(repr=False)
    chain: ChainSpec | None = field(repr=False)
    quality: dict[str, dict[str, float]]
    transforms: list[Any] = field(repr=False)
    classes: int
    example_input: Inputs = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)
    directories: Directories = field(repr=False)

    @property
    def recipe(self) -> dict[str, Any]:
        """The arguments of `api.network` that build the unpruned architecture, keywords in `kwargs`."""
        settings = self.base.network
        shape = sample_shape(self.example_input)
        return {
            "name": registry.plain(settings.name),
            "input_shape": shape,
            "outputs": settings.output_size,
            "kwargs": dict(settings.kwargs),
        }

    def test_samples(self, test_set: str | None = None) -> Samples:
        """Return the samples of a test set, by default the first evaluated one, after the transforms.

        The files lie where luigi.cfg or the experiment file says, else below ./data/training.
        """
        name = test_set or next(iter(self.quality), self.base.network.dataset)
        folders = self.directories
        return data.load_test(
            name, self.base.training, training_data=folders.training_data, local_data=folders.local_data
        )

    def evaluate(self, test_set: str | None = None, network: nn.Module | None = None) -> dict[str, float]:
        """Return loss and metrics on a test set, computed now as the experiment computes them.

        network: another one in place of this, such as `compact().network` or an exported one.
        """
        training = self.base.training
        return evaluation.evaluate(
            self.network if network is None else network,
            self.test_samples(test_set),
            loss=training.loss,
            loss_kwargs=training.loss_kwargs,
            metrics=training.metrics_test,
            batch_size=training.test_batch_size,
            device=torch.device("cpu"),
        )


def read_finished(result: Result, path: Path, directories: Directories) -> FinishedNetwork:
    """Return the network of a result of TrainBase, Prune or Retrain; raises ConfigError if its parts are not found."""
    chain = None if result.family == "TrainBase" else ChainSpec.model_validate(result.spec)
    base = TrainSpec.model_validate(result.spec) if chain is None else chain.base
    registry.look_in(Path.cwd())
    registry.look_in(directories.modules)
    example = _example(base, directories, stand_in=True)
    try:
        network, masks = restore_network(result, base, sample_shape(example))
    except RuntimeError:  # the weights' shapes depend on the size of the data set's own samples
        example = _example(base, directories, stand_in=False)
        network, masks = restore_network(result, base, sample_shape(example))
    original = _original_size(result, network)
    one = select(example, slice(1))
    return FinishedNetwork(
        network=hold(network.eval(), masks),
        masks=masks,
        structure=result.meta["structure"],
        layers=pruned_layers(network, masks, result.meta["structure"]),
        size=_number(result, "size", lambda: pruning.count_size(network, masks)),
        flops=_number(result, "flops", lambda: pruning.count_flops(network, one, masks)),
        original_size=original[0],
        original_flops=original[1] or pruning.count_flops(network, one),
        method=REFERENCE if chain is None else chain.method,
        target_keep_ratio=1.0 if chain is None else chain.keep_ratio,
        _example=example,
        path=path,
        family=result.family,
        base=base,
        chain=chain,
        quality=_quality(result, path, base),
        transforms=[build_transform(each) for each in _transforms(base.training)],
        classes=base.network.output_size,
        example_input=example,
        provenance=result.provenance,
        directories=directories,
    )


def _number(result: Result, name: str, otherwise: Callable[[], int]) -> int:
    return int(result.arrays[name]) if name in result.arrays else otherwise()


def _original_size(result: Result, network: nn.Module) -> tuple[int, int]:
    if "original_size" in result.arrays:
        return int(result.arrays["original_size"]), int(result.arrays["original_flops"])
    return pruning.count_size(network), 0


def _transforms(training: TrainingConfig) -> tuple[Any, ...]:
    return (*training.transforms_test, *training.transforms_final)


def _example(base: TrainSpec, directories: Directories, *, stand_in: bool) -> Inputs:
    """Return a batch of inputs: random samples, which need no files, or those of the data set if it is foreign."""
    name = base.network.dataset
    row = registry.find("dataset", name)
    folders = {"training_data": directories.training_data, "local_data": directories.local_data}
    if stand_in and row.input_shape is not None and not registry.is_foreign(str(row.path)):
        name = name if name.startswith(SYNTHETIC) else f"{SYNTHETIC}{name}"
    return example_input(data.load_test(name, base.training, **folders))


def _quality(result: Result, path: Path, base: TrainSpec) -> dict[str, dict[str, float]]:
    """Return the evaluations of this result that lie where the experiment writes them: loss and metrics by test set."""
    folder = path.parent
    if result.family == "TrainBase":
        folder = folder.parent / REFERENCE
    found: dict[str, dict[str, float]] = {}
    for file in sorted(folder.glob("*-evaluate-*.h5")):
        try:
            about = read_about(file)
        except (OSError, KeyError, ValueError):
            continue  # damaged, or not one of ours
        if about["provenance"].get("parents", {}).get("network", {}).get("key") != result.key:
            continue
        evaluated = read_result(file)
        values = {"loss": float(evaluated.arrays["loss"])} if "loss" in evaluated.arrays else {}
        values |= {name: float(value) for name, value in evaluated.group("metrics").items()}
        found[registry.plain(EvaluateSpec.model_validate(evaluated.spec).test_set)] = values
    return found


def network_of(result: Result, path: Path) -> tuple[Result, Path]:
    """Return the network that an evaluation evaluated, or the result itself; raises ConfigError for other results."""
    if result.family in NETWORKS:
        return result, path
    if result.family == "Evaluate":
        source = (path.parent / result.provenance["parents"]["network"]["path"]).resolve()
        return read_result(source), source
    what = {"Aggregate": "the tables of an experiment", "Scores": "scores of a trained network"}.get(result.family)
    raise ConfigError(
        f"{path}: holds no network but {what or f'a {result.family!r} result'}; give a result of "
        f"{', '.join(NETWORKS)} or the experiment file"
    )
