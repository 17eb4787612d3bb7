"""Experiments shrunk to minutes: every stage on synthetic samples, to try a file before its data and GPUs are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from luigi_prune import registry
from luigi_prune.config.checks import check_experiment
from luigi_prune.config.ratios import keep_ratios
from luigi_prune.config.schema import Component, Experiment, SpacingConfig, TrainingConfig
from luigi_prune.registry.dataset_families import SMALL_EDGE, SYNTHETIC

EPOCHS = 2
_BATCH_SIZE = 16
_SIZES = ("size", "min_size", "max_size")  # keywords of transforms that are pixels
_SMALL = {"bert": {"num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96}}


def shrink(experiment: Experiment) -> Experiment:
    """Return the experiment with one network, one repetition, two keep ratios, two epochs and synthetic data.

    The name of the data set says so, hence results lie apart from those of the experiment itself.
    """
    network, settings = experiment.network, experiment.experiments
    row = registry.find("dataset", network.dataset)
    data = network.dataset if registry.is_foreign(str(row.path)) else f"{SYNTHETIC}{network.dataset}"
    ratios = keep_ratios(settings.spacing)
    spacing = [SpacingConfig(type="manual", values=(ratios[0], ratios[-1]))] if len(ratios) > 2 else settings.spacing
    small = _SMALL.get(network.name, {})
    shrunk = experiment.model_copy(
        update={
            "name": f"{experiment.name}-smoke",
            "network": network.model_copy(
                update={"dataset": data, "weights": None, "new_layers": (), "kwargs": {**small, **network.kwargs}}
            ),
            "training": _shorter(experiment.training, row.input_shape),
            "retraining": _shorter(experiment.retraining, row.input_shape),
            "experiments": settings.model_copy(
                update={
                    "num_nets": 1,
                    "num_repetitions": 1,
                    "dataset_test": (data,),
                    "spacing": tuple(spacing),
                    "retrain_iterations": min(settings.retrain_iterations, len(ratios), 2),
                }
            ),
        }
    )
    return check_experiment(shrunk)[0]


def _shorter(training: TrainingConfig, shape: Any) -> TrainingConfig:
    """Return a training of `EPOCHS` epochs, its schedule shortened in proportion, on small images."""
    epochs = min(EPOCHS, training.num_epochs)
    share = epochs / training.num_epochs if training.num_epochs else 1.0
    pixels = min(shape[1:]) if isinstance(shape, tuple) and len(shape) == 3 else 0
    scale = SMALL_EDGE / pixels if pixels > SMALL_EDGE else 1.0
    return training.model_copy(
        update={
            "num_epochs": epochs,
            "start_epoch": min(int(share * training.start_epoch), max(0, epochs - 1)),
            "early_stop_epoch": min(training.early_stop_epoch, epochs),
            "batch_size": min(training.batch_size, _BATCH_SIZE),
            "test_batch_size": min(training.test_batch_size, _BATCH_SIZE),
            "lr_schedulers": tuple(
                # a tenth of an epoch is at least one step
                each.model_copy(
                    update={"step_kwargs": _scaled(each.step_kwargs, lambda epochs: max(0.1, share * epochs))}
                )
                for each in training.lr_schedulers
            ),
            **{
                key: tuple(_small(each, scale) for each in getattr(training, key))
                for key in ("transforms_train", "transforms_test", "transforms_final")
            },
        }
    )


def _scaled(value: Any, scale: Callable[[float], float]) -> Any:
    """Return numbers scaled, those in lists and dictionaries, too; other values as they are."""
    if isinstance(value, dict):
        return {key: _scaled(each, scale) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_scaled(each, scale) for each in value)
    return scale(value) if isinstance(value, (int, float)) else value


def _small(transform: Component, scale: float) -> Component:
    sizes = {key: value for key, value in transform.kwargs.items() if key in _SIZES}
    smaller = _scaled(sizes, lambda pixels: max(1, round(scale * pixels)))
    return transform.model_copy(update={"kwargs": {**transform.kwargs, **smaller}})
