"""Keys: the content-addressed identity of every task.

A key is the SHA-256 of the settings that can change the task's result, as far as they differ from the defaults, of the
keys of its inputs (which chain down to the trained network) and of the algorithm version of its stage. Specs contain a
foreign part as `name@digest of its sources`, so that its code is part of the key, too.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from luigi_prune import registry
from luigi_prune.config.schema import Component, Experiment, NetworkConfig, TrainingConfig
from luigi_prune.identity.remembered import per_object
from luigi_prune.identity.spec import ChainSpec, EvaluateSpec, TrainSpec, evaluations, experiment_spec, shown_methods

# Bump a stage's version if the same settings give a different result, or if a default changes.
ALGORITHM_VERSION = {"TrainBase": 4, "Prune": 7, "Retrain": 4, "Evaluate": 1, "Aggregate": 1, "Report": 2, "Scores": 5}


def canonical(value: Any) -> Any:
    """Return `value` as JSON data, equal for equal settings: numbers normalised, models without defaults."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        changed = {name: getattr(value, name) for name in fields if getattr(value, name) != fields[name].get_default()}
        return canonical(changed)
    if isinstance(value, Mapping):
        return {str(name): canonical(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def content_key(stage: str, settings: Mapping[str, Any], parents: Sequence[str] = ()) -> str:
    """Return the key (64 hexadecimal digits) of a task of `stage` with `settings` and the inputs `parents` (keys)."""
    content = {
        "stage": stage,
        "version": ALGORITHM_VERSION[stage],
        "own": canonical(settings),
        "parents": list(parents),
    }
    return _digest(content)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@per_object
def _training_digest(training: TrainingConfig) -> str:
    """Return the hash of the training settings that can change the weights."""
    return _digest_of_json(training.model_dump_json())


@functools.lru_cache(maxsize=1024)  # a graph repeats the same few trainings
def _digest_of_json(text: str) -> str:
    training = TrainingConfig.model_validate_json(text)
    content: dict[str, Any] = canonical(training)
    early_stopping = training.early_stop_epoch < training.num_epochs
    parts = (training.loss, *(metric.type for metric in training.metrics_test))
    by_batch = any(map(registry.is_foreign, parts))  # a loss or metric from outside may depend on the batches
    content.pop("metrics_test", None)
    if early_stopping:  # the first metric then chooses the weights
        content["metric"] = canonical(training.metrics_test[0])
    else:
        content.pop("early_stop_epoch", None)
    if training.test_batch_size == training.batch_size or not (early_stopping or by_batch):
        content.pop("test_batch_size", None)
    return _digest(content)


def _network(network: NetworkConfig) -> NetworkConfig:
    """Return the network with the digest of its weights' file alone: where the file lies changes no result."""
    if not network.weights:
        return network
    layers = tuple(sorted(set(network.new_layers)))
    return network.model_copy(update={"weights": network.weights.rpartition("@")[2], "new_layers": layers})


@per_object
def train_key(spec: TrainSpec) -> str:
    """Return the key of a trained network."""
    settings = {
        "network": _network(spec.network),
        "training": _training_digest(spec.training),
        "seed": spec.seed,
        "net": spec.net,
    }
    if spec.rewind_epoch is not None:
        settings["rewind_epoch"] = spec.rewind_epoch
    return content_key("TrainBase", settings)


def chain_key(spec: ChainSpec) -> str:
    """Return the key of a chain's last step: of its Retrain if it is retrained, else of its Prune."""
    settings: dict[str, Any] = {}
    if spec.rules != "paper":
        settings["rules"] = spec.rules
    if spec.delta_s != 1e-16 and registry.METHODS[spec.method].needs_data:
        settings["delta_s"] = spec.delta_s
    if spec.ignore_layers:
        settings["ignore_layers"] = spec.ignore_layers
    if spec.include_layers:
        settings["include_layers"] = spec.include_layers
    constant = _Constant(
        base=train_key(spec.base),
        retraining=_training_digest(spec.retraining),
        rewind=spec.rewind,
        from_original=registry.METHODS[spec.method].from_original,
        method=spec.method,
        repetition=spec.repetition,
        settings=tuple(settings.items()),
        versions=(ALGORITHM_VERSION["Prune"], ALGORITHM_VERSION["Retrain"]),
    )
    key, following = constant.base, _first_steps(constant)
    for step in spec.steps:
        at = (step.keep_ratio, step.retrained)
        if at not in following:
            following[at] = (_key_after(key, constant, *at), {})
        key, following = following[at]
    return key


class _Constant(NamedTuple):
    """What all steps of a chain share."""

    base: str  # key of the trained network
    retraining: str  # digest
    rewind: bool
    from_original: bool
    method: str
    repetition: int
    settings: tuple[tuple[str, Any], ...]
    versions: tuple[int, int]


_Steps = dict[tuple[float, bool], tuple[str, Any]]  # (keep ratio, retrained): the key after it, the steps that follow


@functools.lru_cache(maxsize=4096)  # chains to several ratios have their first steps in common
def _first_steps(constant: _Constant) -> _Steps:
    return {}


def _key_after(key: str, constant: _Constant, keep_ratio: float, retrained: bool) -> str:
    """Return the key after one more step."""
    own = {"method": constant.method, "keep_ratio": keep_ratio, "repetition": constant.repetition}
    from_original = key != constant.base and constant.from_original
    key = content_key("Prune", own | dict(constant.settings), [key, constant.base] if from_original else [key])
    if retrained:
        own = {"retraining": constant.retraining, "repetition": constant.repetition}
        key = content_key("Retrain", own, [key, constant.base] if constant.rewind else [key])
    return key


def scores_key(spec: ChainSpec) -> str:
    """Return the key of the scores of a chain's trained network, shared by all methods with the same score."""
    settings: dict[str, Any] = {
        "score": registry.METHODS[spec.method].score_name,
        "repetition": spec.repetition,
        "rules": spec.rules,
        "delta_s": spec.delta_s,  # determines the number of samples
    }
    if spec.ignore_layers:
        settings["ignore_layers"] = spec.ignore_layers
    if spec.include_layers:
        settings["include_layers"] = spec.include_layers
    return content_key("Scores", settings, [train_key(spec.base)])


def evaluate_key(spec: EvaluateSpec) -> str:
    """Return the key of an evaluation."""
    parent = train_key(spec.base) if spec.chain is None else chain_key(spec.chain)
    metrics = [_canonical_metric(metric) for metric in spec.metrics]
    settings: dict[str, Any] = {"test_set": spec.test_set, "metrics": metrics}
    if spec.latency:
        settings["latency"] = True
    return content_key("Evaluate", settings, [parent])


@per_object
def _canonical_metric(metric: Component) -> Any:
    return canonical(metric)


@per_object
def aggregate_key(experiment: Experiment) -> str:
    """Return the key of an experiment's tables, from its axes and evaluations."""
    grid = experiment_spec(experiment)
    settings = {"mode": grid.mode, "methods": grid.methods, "keep_ratios": grid.keep_ratios, "metrics": grid.metrics}
    return content_key("Aggregate", settings, [evaluate_key(spec) for spec in evaluations(experiment).values()])


def report_key(experiment: Experiment) -> str:
    """Return the key of an experiment's report, from its tables and their presentation."""
    labels, colors = shown_methods(experiment)
    plotting = experiment.experiments.plotting
    settings = {"name": experiment.name, "plotting": plotting, "labels": labels, "colors": colors}
    return content_key("Report", settings, [aggregate_key(experiment)])
