"""Specs: frozen models of what a task computes, derived from an experiment. `keys.py` hashes them."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from luigi_prune import registry
from luigi_prune.config.ratios import keep_ratios, split_ratios
from luigi_prune.config.schema import Component, Experiment, NetworkConfig, TrainingConfig
from luigi_prune.identity.remembered import per_object

REFERENCE = "ReferenceNet"  # method 0 of every experiment: the trained network itself


class Spec(BaseModel):
    """Base of all specs: frozen, with JSON both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def as_json(self) -> str:
        """Return the canonical JSON of the spec; `model_validate_json` is its inverse."""
        texts = [f'"{name}":{_as_json(getattr(self, name))}' for name in _sorted_fields(type(self))]
        return "{" + ",".join(texts) + "}"


def _as_json(value: Any) -> str:
    """Return canonical JSON, put together from texts that are remembered for the settings that many specs share."""
    if isinstance(value, Step):
        return value.as_json()
    if isinstance(value, BaseModel):
        return _model_as_json(value)
    if isinstance(value, tuple):
        return "[" + ",".join(map(_as_json, value)) + "]"
    return _scalar_as_json(value)


@functools.lru_cache(maxsize=4096, typed=True)
def _scalar_as_json(value: Any) -> str:
    return json.dumps(value)


@functools.cache
def _sorted_fields(kind: type[BaseModel]) -> list[str]:
    return sorted(kind.model_fields)


@per_object
def _model_as_json(model: BaseModel) -> str:
    if isinstance(model, Spec):
        return model.as_json()
    return json.dumps(model.model_dump(mode="json", by_alias=False), sort_keys=True, separators=(",", ":"))


class TrainSpec(Spec):
    """A trained network. `rewind_epoch`: the epoch before which its weights are also stored, for weight rewinding."""

    network: NetworkConfig
    training: TrainingConfig
    seed: int
    net: int
    rewind_epoch: int | None = None


class Step(Spec):
    """One step of a chain: pruning to `keep_ratio` (of the original size), optionally followed by retraining."""

    keep_ratio: float
    retrained: bool

    def as_json(self) -> str:
        """Return the canonical JSON of the step."""
        return _step_as_json(self.keep_ratio, self.retrained)


@functools.lru_cache(maxsize=4096)
def _step_as_json(keep_ratio: float, retrained: bool) -> str:
    return f'{{"keep_ratio":{json.dumps(keep_ratio)},"retrained":{json.dumps(retrained)}}}'


class ChainSpec(Spec):
    """A network pruned in one or more steps, each from the previous one; the first from the trained network."""

    base: TrainSpec
    method: str
    repetition: int
    steps: tuple[Step, ...]
    retraining: TrainingConfig
    rewind: bool = False
    rules: str = "paper"
    delta_s: float = 1e-16
    ignore_layers: tuple[str, ...] = ()
    include_layers: tuple[str, ...] = ()

    @property
    def keep_ratio(self) -> float:
        """The keep ratio of the last step."""
        return self.steps[-1].keep_ratio

    def before(self) -> ChainSpec | None:
        """Return the chain without its last step, None for the trained network."""
        return self.model_copy(update={"steps": self.steps[:-1]}) if len(self.steps) > 1 else None

    def pruned(self) -> ChainSpec:
        """Return the chain with its last step not retrained (yet)."""
        return self.model_copy(update={"steps": (*self.steps[:-1], Step(keep_ratio=self.keep_ratio, retrained=False))})


class EvaluateSpec(Spec):
    """The evaluation of a network, pruned or not, on one test set. `latency`: whether it is timed, too."""

    base: TrainSpec
    chain: ChainSpec | None = None
    test_set: str
    metrics: tuple[Component, ...]
    latency: bool = False


class ExperimentSpec(Spec):
    """The axes of an experiment's grid: (net, ratio, repetition, method) for every test set."""

    name: str
    network: NetworkConfig
    mode: str
    methods: tuple[str, ...]
    keep_ratios: tuple[float, ...]
    num_nets: int
    num_repetitions: int
    metrics: tuple[Component, ...]
    test_sets: tuple[str, ...]
    retraining_epochs: tuple[int, int]
    early_stop_epochs: tuple[int, int]  # of training and retraining


def base_specs(experiment: Experiment) -> list[TrainSpec]:
    """Return the trained networks of an experiment, one per net."""
    rewind = experiment.experiments.mode == "cascade-rewind"
    return [
        TrainSpec(
            network=experiment.network,
            training=experiment.training,
            seed=experiment.experiments.seed,
            net=net,
            rewind_epoch=experiment.retraining.start_epoch if rewind else None,
        )
        for net in range(experiment.experiments.num_nets)
    ]


def ratio_axis(experiment: Experiment) -> tuple[float, ...]:
    """Return the ratio axis of an experiment: the retrained keep ratios, or (1,) without pruning."""
    settings = experiment.experiments
    if settings.mode == "train":
        return (1.0,)
    split = split_ratios(keep_ratios(settings.spacing), settings.retrain_iterations, settings.mode)
    return tuple(ratio for ratio, _ in split)


def chain_specs(experiment: Experiment, base: TrainSpec, method: str, repetition: int) -> list[ChainSpec]:
    """Return the chain of steps to every ratio of the axis; [] for the reference network."""
    settings = experiment.experiments
    if method == REFERENCE or settings.mode == "train":
        return []
    split = split_ratios(keep_ratios(settings.spacing), settings.retrain_iterations, settings.mode)
    identity = registry.METHODS[method].granularity == "none"
    steps: tuple[Step, ...] = ()
    chains = []
    for ratio, prune_only in split:
        if settings.mode == "retrain":
            steps = ()
        if identity:  # nothing is pruned: all ratios of one-shot mode are the same task
            steps = (*steps, Step(keep_ratio=1.0, retrained=True))
        else:
            before = tuple(Step(keep_ratio=earlier, retrained=False) for earlier in prune_only)
            steps = (*steps, *before, Step(keep_ratio=ratio, retrained=True))
        chains.append(
            ChainSpec(
                base=base,
                method=method,
                repetition=repetition,
                steps=steps,
                retraining=experiment.retraining,
                rewind=settings.mode == "cascade-rewind",
                rules=settings.rules,
                delta_s=experiment.coresets.delta_s,
                ignore_layers=() if identity else tuple(sorted(set(settings.ignore_layers))),
                include_layers=() if identity else tuple(sorted(set(settings.include_layers))),
            )
        )
    return chains


def experiment_spec(experiment: Experiment) -> ExperimentSpec:
    """Return the grid of an experiment."""
    settings = experiment.experiments
    methods = (REFERENCE,) if settings.mode == "train" else settings.methods
    return ExperimentSpec(
        name=experiment.name,
        network=experiment.network,
        mode=settings.mode,
        methods=methods,
        keep_ratios=ratio_axis(experiment),
        num_nets=settings.num_nets,
        num_repetitions=1 if settings.mode == "train" else settings.num_repetitions,
        metrics=experiment.training.metrics_test,
        test_sets=settings.dataset_test,
        retraining_epochs=(experiment.retraining.start_epoch, experiment.retraining.num_epochs),
        early_stop_epochs=(experiment.training.early_stop_epoch, experiment.retraining.early_stop_epoch),
    )


@per_object
def evaluations(experiment: Experiment) -> dict[tuple[str, int, int, int, int], EvaluateSpec]:
    """Return the evaluation of every cell (test set, net, ratio, repetition, method index) of an experiment."""
    grid = experiment_spec(experiment)
    cells: dict[tuple[str, int, int, int, int], EvaluateSpec] = {}
    for net, base in enumerate(base_specs(experiment)):
        for column, method in enumerate(grid.methods):
            for repetition in range(grid.num_repetitions):
                chains: Sequence[ChainSpec | None] = chain_specs(experiment, base, method, repetition)
                chains = chains or [None] * len(grid.keep_ratios)
                for test_set in grid.test_sets:
                    for row, chain in enumerate(chains):
                        cells[test_set, net, row, repetition, column] = EvaluateSpec(
                            base=base,
                            chain=chain,
                            test_set=test_set,
                            metrics=grid.metrics,
                            latency=experiment.experiments.measure_latency,
                        )
    return cells


def shown_methods(experiment: Experiment) -> tuple[dict[str, str], dict[str, str]]:
    """Return the label and the colour of every method of an experiment, by method."""
    methods = experiment_spec(experiment).methods
    rows = registry.METHODS
    labels = {method: experiment.network_names.get(method, rows[method].label) for method in methods}
    colors = {method: experiment.network_colors.get(method, rows[method].color) for method in methods}
    return labels, colors
