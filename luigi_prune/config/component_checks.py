"""Checks of the components of a training: optimizer, loss, schedulers, metrics, transforms, and their keywords."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luigi_prune import registry
from luigi_prune.config.key_names import KeyPath, SettingError
from luigi_prune.config.schema import Component, SchedulerComponent, TrainingConfig
from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry import ClassRow, KindName

_NOT_NEGATIVE = ("lr", "weight_decay", "momentum")
_TEXTS = (
    *("interpolation", "policy", "padding_mode", "value", "mode"),
    *("anneal_strategy", "scale_mode", "reduction", "line_search_fn"),
)


def check_training(training: TrainingConfig, section: str) -> tuple[TrainingConfig, list[tuple[KeyPath, str]]]:
    """Return the training without falsy keywords that its optimizer lacks, and notes on them.

    Raises SettingError for an unknown class, an unknown or missing keyword, and duplicate metrics.
    """
    notes: list[tuple[KeyPath, str]] = []
    row = find_row("optimizer", training.optimizer, (section, "optimizer"))
    kept: dict[str, Any] = {}
    for name, value in training.optimizer_kwargs.items():
        path = (section, "optimizer_kwargs", name)
        if name in row.keywords or row.open_ended:
            kept[name] = value
        elif value:
            raise SettingError(path, f"{row.name} has no keyword {name!r}{nearest(name, row.keywords)}")
        else:
            notes.append((path, f"{row.name} has no keyword {name!r}; {value!r} is dropped"))
    for name in row.required:
        if name not in kept:
            raise SettingError((section, "optimizer_kwargs"), f"{row.name} needs the keyword {name!r}")
    _check_rates(training, section)
    loss = find_row("loss", training.loss, (section, "loss"))
    check_keywords(loss, training.loss_kwargs, (section, "loss_kwargs"))
    reduction = training.loss_kwargs.get("reduction", "mean")
    if reduction not in loss.reductions:
        raise SettingError(
            (section, "loss_kwargs", "reduction"),
            f"{reduction!r} does not return a scalar{nearest(reduction, loss.reductions)}",
        )
    for index, scheduler in enumerate(training.lr_schedulers):
        _check_scheduler(scheduler, (section, "lr_schedulers", index))
    for name in ("transforms_train", "transforms_test", "transforms_final"):
        for index, transform in enumerate(getattr(training, name)):
            _check_transform(transform, (section, name, index))
    _check_metrics(training.metrics_test, (section, "metrics_test"))
    metrics = tuple(m for m in training.metrics_test if not find_row("metric", m.type, (section,)).placeholder)
    if len(metrics) == len(training.metrics_test):
        metrics = training.metrics_test
    elif section == "training":
        notes.append(((section, "metrics_test"), "the metric Dummy measures nothing; it is left out"))
    return training.model_copy(update={"optimizer_kwargs": kept, "metrics_test": metrics}), notes


def _check_rates(training: TrainingConfig, section: str) -> None:
    """Raise SettingError for optimizer keywords that are not numbers, or negative ones that must not be."""
    kwargs = training.optimizer_kwargs
    for name, value in kwargs.items():
        path = (section, "optimizer_kwargs", name)
        if not registry.is_foreign(training.optimizer):
            _check_value(name, value, path)
        if name in _NOT_NEGATIVE and (not isinstance(value, int | float) or isinstance(value, bool) or value < 0):
            raise SettingError(path, f"expected a number of at least 0, got {value!r}")
    if (
        training.optimizer == "SGD"
        and kwargs.get("nesterov")
        and (not kwargs.get("momentum") or kwargs.get("dampening"))
    ):
        raise SettingError(
            (section, "optimizer_kwargs", "nesterov"), "Nesterov's method needs a momentum above 0 and no dampening"
        )


def find_row(kind: KindName, name: str, path: KeyPath) -> Any:
    """Return the row of `name`; raises SettingError at `path` if there is none."""
    try:
        return registry.find(kind, name)
    except ConfigError as error:
        raise SettingError(path, str(error)) from None


def check_keywords(row: ClassRow, kwargs: dict[str, Any], path: KeyPath) -> None:
    """Raise SettingError for an unknown or missing keyword, or a value of the wrong type."""
    any_value = row.open_ended or registry.is_foreign(str(row.path))  # classes of other packages, which check it
    for name in kwargs:
        if name not in row.keywords and not row.open_ended:
            hint = nearest(name, row.keywords) if row.keywords else "; it has none"
            raise SettingError((*path, name), f"{row.name} has no keyword {name!r}{hint}")
        if not any_value:
            _check_value(name, kwargs[name], (*path, name))
    for name in row.required:
        if name not in kwargs:
            raise SettingError(path, f"{row.name} needs the keyword {name!r}")


def _check_value(name: str, value: object, path: KeyPath) -> None:
    """Raise SettingError for a value that no built-in class takes: a dictionary, or a string instead of a number."""
    if isinstance(value, dict) or (isinstance(value, str) and name not in _TEXTS):
        raise SettingError(path, f"expected a number, got {value!r}")
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, bool) or not isinstance(entry, int | float):
            raise SettingError(path, f"expected a list of numbers, got {value!r}")


def _check_scheduler(scheduler: SchedulerComponent, path: KeyPath) -> None:
    row = find_row("scheduler", scheduler.type, (*path, "type"))
    for name, value in scheduler.step_kwargs.items():
        here = (*path, "step_kwargs", name)
        if registry.is_foreign(scheduler.type) and (name in row.keywords or row.open_ended):
            continue  # any keyword may count epochs
        if name not in row.keywords:
            raise SettingError(here, f"{row.name} has no keyword {name!r}{nearest(name, row.epochs or row.keywords)}")
        if name not in row.epochs:
            raise SettingError(here, f"{name!r} is not counted in epochs; it belongs in kwargs")
        if name in scheduler.kwargs:
            raise SettingError(here, f"{name!r} is also given in kwargs")
        _check_epochs(value, here)
    check_keywords(row, {**scheduler.kwargs, **scheduler.step_kwargs}, (*path, "kwargs"))
    if row.name == "OneCycleLR":
        keywords = {*scheduler.kwargs, *scheduler.step_kwargs}
        if "total_steps" not in keywords and not {"epochs", "steps_per_epoch"} <= keywords:
            raise SettingError(path, "OneCycleLR needs 'total_steps'")


def _check_epochs(value: object, path: KeyPath) -> None:
    """Raise SettingError unless `value` is a number of epochs, or a list of them for `milestones`."""
    plural = path[-1] == "milestones"
    if plural != isinstance(value, list):
        raise SettingError(path, f"expected {'a list' if plural else 'a number'} of epochs, got {value!r}")
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, int | float) or number < 0:
            raise SettingError(path, f"expected a number of epochs, got {number!r}")


def _check_transform(transform: Component, path: KeyPath) -> None:
    row = find_row("transform", transform.type, (*path, "type"))
    check_keywords(row, transform.kwargs, (*path, "kwargs"))
    for name, choices in row.choices.items():
        value = transform.kwargs.get(name)
        if name in transform.kwargs and value not in choices:
            raise SettingError((*path, "kwargs", name), f"{value!r} is not a choice{nearest(value, choices)}")


def _check_metrics(metrics: Sequence[Component], path: KeyPath) -> None:
    labels: dict[str, int] = {}
    for index, metric in enumerate(metrics):
        row = find_row("metric", metric.type, (*path, index, "type"))
        check_keywords(row, metric.kwargs, (*path, index, "kwargs"))
        topk = metric.kwargs.get("topk", 1) if metric.type == "TopK" else 1
        if isinstance(topk, bool) or not isinstance(topk, int) or topk < 1:
            raise SettingError((*path, index, "kwargs", "topk"), f"expected a positive integer, got {topk!r}")
        label = registry.metric_label(metric)
        if label in labels:
            raise SettingError((*path, index), f"the metric {label} appears twice")
        labels[label] = index
