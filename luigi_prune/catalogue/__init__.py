"""The catalogue: everything that an experiment file can name, as light rows (strings and numbers, no torch)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, overload

from luigi_prune.catalogue.methods import LATER_METHODS, METHODS, SHORT_NAMES
from luigi_prune.catalogue.networks import DATASETS, LATER_DATASETS, LATER_NETWORKS, NETWORKS
from luigi_prune.catalogue.rows import (
    ClassRow,
    DatasetRow,
    LossRow,
    MethodRow,
    MetricRow,
    NetworkRow,
    OptimizerRow,
    SchedulerRow,
    TransformRow,
)
from luigi_prune.catalogue.training import (
    LATER_LOSSES,
    LATER_METRICS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    SCHEDULERS,
    UNSUITABLE_LOSSES,
    UNSUITABLE_OPTIMIZERS,
    UNSUITABLE_SCHEDULERS,
)
from luigi_prune.catalogue.transforms import LATER_TRANSFORMS, TRANSFORMS, UNSUITABLE_TRANSFORMS
from luigi_prune.errors import ConfigError, nearest

__all__ = [
    "DATASETS",
    "KINDS",
    "LOSSES",
    "METHODS",
    "METRICS",
    "NETWORKS",
    "OPTIMIZERS",
    "SCHEDULERS",
    "SHORT_NAMES",
    "TRANSFORMS",
    "ClassRow",
    "DatasetRow",
    "LossRow",
    "MethodRow",
    "MetricRow",
    "NetworkRow",
    "OptimizerRow",
    "SchedulerRow",
    "TransformRow",
    "comes_later",
    "find",
    "metric_label",
]

KindName = Literal["method", "network", "dataset", "metric", "loss", "transform", "optimizer", "scheduler"]


@dataclass(frozen=True)
class Kind:
    """One sort of names: its rows, the patterns of names that a later version brings, and names that cannot work."""

    noun: str
    rows: Mapping[str, Any]
    later: Sequence[str] = ()
    unsuitable: Mapping[str, str] = field(default_factory=dict)
    short: Mapping[str, str] = field(default_factory=dict)


KINDS: Mapping[KindName, Kind] = {
    "method": Kind("a pruning method", METHODS, LATER_METHODS, short=SHORT_NAMES),
    "network": Kind("a network", NETWORKS, LATER_NETWORKS),
    "dataset": Kind("a data set", DATASETS, LATER_DATASETS),
    "metric": Kind("a metric", METRICS, LATER_METRICS),
    "loss": Kind("a loss", LOSSES, LATER_LOSSES, UNSUITABLE_LOSSES),
    "transform": Kind("a transform", TRANSFORMS, LATER_TRANSFORMS, UNSUITABLE_TRANSFORMS),
    "optimizer": Kind("an optimizer", OPTIMIZERS, (), UNSUITABLE_OPTIMIZERS),
    "scheduler": Kind("a learning-rate scheduler", SCHEDULERS, (), UNSUITABLE_SCHEDULERS),
}


def comes_later(kind: KindName, name: str) -> bool:
    """Return whether `name` is one that this version does not have but a later one brings."""
    known = KINDS[kind]
    return name not in known.rows and any(re.fullmatch(pattern, name) for pattern in known.later)


@overload
def find(kind: Literal["method"], name: str) -> MethodRow: ...
@overload
def find(kind: Literal["network"], name: str) -> NetworkRow: ...
@overload
def find(kind: Literal["dataset"], name: str) -> DatasetRow: ...
@overload
def find(kind: Literal["metric"], name: str) -> MetricRow: ...
@overload
def find(kind: Literal["loss"], name: str) -> LossRow: ...
@overload
def find(kind: Literal["transform"], name: str) -> TransformRow: ...
@overload
def find(kind: Literal["optimizer"], name: str) -> OptimizerRow: ...
@overload
def find(kind: Literal["scheduler"], name: str) -> SchedulerRow: ...
def find(kind: KindName, name: str) -> Any:
    """Return the row of `name`; a method may be given by its short name.

    Raises ConfigError for a name that is unknown (with the nearest choice), unsuitable (with the reason), or known to
    come in a later version.
    """
    known = KINDS[kind]
    name = known.short.get(name, name)
    if name in known.rows:
        return known.rows[name]
    if name in known.unsuitable:
        raise ConfigError(f"{name!r} {known.unsuitable[name]}")
    if comes_later(kind, name):
        raise ConfigError(f"{name!r} is {known.noun} that this version does not have yet; it comes in a later version")
    raise ConfigError(f"{name!r} is not {known.noun}{nearest(name, [*known.rows, *known.short])}")


class _Component(Protocol):
    @property
    def type(self) -> str: ...
    @property
    def kwargs(self) -> dict[str, Any]: ...


def metric_label(component: _Component) -> str:
    """Return the name of a metric in results: its type and the keywords that tell it apart, as in "TopK5"."""
    row = METRICS.get(component.type)
    defaults = row.defaults if row else {}
    shown = row.shown if row else ()
    keywords = {**defaults, **component.kwargs}
    label = component.type
    for name in sorted(keywords):
        if name in shown:
            label += str(keywords[name])
        elif name not in defaults or keywords[name] != defaults[name]:
            label += f",{name}={keywords[name]}"
    return label
