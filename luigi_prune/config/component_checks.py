"""Checks of what a training names: optimizer, loss, schedulers, metrics, transforms, and their keywords."""

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


def checked_training(training: TrainingConfig, section: str) -> tuple[TrainingConfig, list[tuple[KeyPath, str]]]:
    """Return the training with keywords dropped that its optimizer lacks and that say nothing, and notes on them.

    Raises SettingError for an unknown class, an unknown or missing keyword, and metrics that cannot be told apart.
    """
    notes: list[tuple[KeyPath, str]] = []
    row = found("optimizer", training.optimizer, (section, "optimizer"))
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
    loss = found("loss", training.loss, (section, "loss"))
    check_keywords(loss, training.loss_kwargs, (section, "loss_kwargs"))
    reduction = training.loss_kwargs.get("reduction", "mean")
    if reduction not in loss.reductions:
        raise SettingError(
            (section, "loss_kwargs", "reduction"),
            f"{reduction!r} gives no single value{nearest(reduction, loss.reductions)}",
        )
    for index, scheduler in enumerate(training.lr_schedulers):
        _check_scheduler(scheduler, (section, "lr_schedulers", index))
    for name in ("transforms_train", "transforms_test", "transforms_final"):
        for index, transform in enumerate(getattr(training, name)):
            _check_transform(transform, (section, name, index))
    _check_metrics(training.metrics_test, (section, "metrics_test"))
    return training.model_copy(update={"optimizer_kwargs": kept}), notes


def _check_rates(training: TrainingConfig, section: str) -> None:
    """Raise SettingError for an optimizer's values that are no numbers, or negative where they must not be."""
    given = training.optimizer_kwargs
    for name, value in given.items():
        path = (section, "optimizer_kwargs", name)
        if not registry.is_foreign(training.optimizer):
            _check_value(name, value, path)
        if name in _NOT_NEGATIVE and (not isinstance(value, int | float) or isinstance(value, bool) or value < 0):
            raise SettingError(path, f"a number of at least 0 is wanted, not {value!r}")
    if training.optimizer == "SGD" and given.get("nesterov") and (not given.get("momentum") or given.get("dampening")):
        raise SettingError(
            (section, "optimizer_kwargs", "nesterov"), "Nesterov's method needs a momentum above 0 and no dampening"
        )


def found(kind: KindName, name: str, path: KeyPath) -> Any:
    """Return the catalogue's row; its ConfigError becomes a SettingError at `path`."""
    try:
        return registry.find(kind, name)
    except ConfigError as error:
        raise SettingError(path, str(error)) from None


def check_keywords(row: ClassRow, given: dict[str, Any], path: KeyPath) -> None:
    """Raise SettingError for a keyword that the row lacks, one that is missing, or a value of the wrong kind."""
    foreign = registry.is_foreign(str(row.path))
    for name in given:
        if name not in row.keywords and not row.open_ended:
            hint = nearest(name, row.keywords) if row.keywords else "; it has none"
            raise SettingError((*path, name), f"{row.name} has no keyword {name!r}{hint}")
        if not foreign:
            _check_value(name, given[name], (*path, name))
    for name in row.required:
        if name not in given:
            raise SettingError(path, f"{row.name} needs the keyword {name!r}")


def _check_value(name: str, value: object, path: KeyPath) -> None:
    """Raise SettingError for a keyword's value that no class here takes: a dictionary, a text in place of a number."""
    if isinstance(value, dict) or (isinstance(value, str) and name not in _TEXTS):
        raise SettingError(path, f"a number is wanted, not {value!r}")
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, bool) or not isinstance(entry, int | float):
            raise SettingError(path, f"a list of numbers is wanted, not {value!r}")


def _check_scheduler(scheduler: SchedulerComponent, path: KeyPath) -> None:
    row = found("scheduler", scheduler.type, (*path, "type"))
    for name, value in scheduler.step_kwargs.items():
        here = (*path, "step_kwargs", name)
        if registry.is_foreign(scheduler.type) and (name in row.keywords or row.open_ended):
            continue  # its author knows what it counts in epochs
        if name not in row.keywords:
            raise SettingError(here, f"{row.name} has no keyword {name!r}{nearest(name, row.epochs or row.keywords)}")
        if name not in row.epochs:
            raise SettingError(here, f"{name!r} is not counted in epochs; it belongs into kwargs")
        if name in scheduler.kwargs:
            raise SettingError(here, f"{name!r} stands in kwargs, too")
        _check_epochs(value, here)
    check_keywords(row, {**scheduler.kwargs, **scheduler.step_kwargs}, (*path, "kwargs"))
    if row.name == "OneCycleLR":
        given = {*scheduler.kwargs, *scheduler.step_kwargs}
        if "total_steps" not in given and not {"epochs", "steps_per_epoch"} <= given:
            raise SettingError(path, "OneCycleLR needs 'total_steps'")


def _check_epochs(value: object, path: KeyPath) -> None:
    """Raise SettingError unless `value` is a number of epochs, or a list of them where the keyword is a plural."""
    plural = path[-1] == "milestones"
    if plural != isinstance(value, list):
        raise SettingError(path, f"{'a list of epochs' if plural else 'a number of epochs'} is wanted, not {value!r}")
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, int | float) or number < 0:
            raise SettingError(path, f"a number of epochs is wanted, not {number!r}")


def _check_transform(transform: Component, path: KeyPath) -> None:
    row = found("transform", transform.type, (*path, "type"))
    check_keywords(row, transform.kwargs, (*path, "kwargs"))
    for name, choices in row.choices.items():
        value = transform.kwargs.get(name)
        if name in transform.kwargs and value not in choices:
            raise SettingError((*path, "kwargs", name), f"{value!r} is not a choice{nearest(value, choices)}")


def _check_metrics(metrics: Sequence[Component], path: KeyPath) -> None:
    labels: dict[str, int] = {}
    for index, metric in enumerate(metrics):
        row = found("metric", metric.type, (*path, index, "type"))
        check_keywords(row, metric.kwargs, (*path, index, "kwargs"))
        topk = metric.kwargs.get("topk", 1) if metric.type == "TopK" else 1
        if isinstance(topk, bool) or not isinstance(topk, int) or topk < 1:
            raise SettingError((*path, index, "kwargs", "topk"), f"a whole number above 0 is wanted, not {topk!r}")
        label = registry.metric_label(metric)
        if label in labels:
            raise SettingError((*path, index), f"the metric {label} stands there twice")
        labels[label] = index
