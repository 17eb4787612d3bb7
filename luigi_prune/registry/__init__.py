"""The registry: one light row (strings and numbers, no torch) for every part that an experiment file can name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, overload

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry.dataset_families import DATASET_FAMILIES
from luigi_prune.registry.dataset_rows import DATASETS as BUILTIN_DATASETS
from luigi_prune.registry.method_rows import METHODS, SHORT_NAMES
from luigi_prune.registry.network_families import NETWORK_FAMILIES
from luigi_prune.registry.network_rows import NETWORKS as BUILTIN_NETWORKS
from luigi_prune.registry.network_rows import UNSUITABLE_NETWORKS
from luigi_prune.registry.plugins import PartTable, is_foreign, load_part, look_in, plain, sources_of
from luigi_prune.registry.row_reading import KindName
from luigi_prune.registry.rows import (
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
from luigi_prune.registry.training_rows import LOSSES as BUILTIN_LOSSES
from luigi_prune.registry.training_rows import METRICS as BUILTIN_METRICS
from luigi_prune.registry.training_rows import OPTIMIZERS as BUILTIN_OPTIMIZERS
from luigi_prune.registry.training_rows import SCHEDULERS as BUILTIN_SCHEDULERS
from luigi_prune.registry.training_rows import (
    UNSUITABLE_LOSSES,
    UNSUITABLE_OPTIMIZERS,
    UNSUITABLE_SCHEDULERS,
)
from luigi_prune.registry.transform_rows import TRANSFORMS as BUILTIN_TRANSFORMS
from luigi_prune.registry.transform_rows import UNSUITABLE_TRANSFORMS

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
    "find",
    "is_foreign",
    "load_part",
    "look_in",
    "metric_label",
    "plain",
    "resolve_name",
    "sources_of",
]

NETWORKS = PartTable("network", BUILTIN_NETWORKS, families=NETWORK_FAMILIES)
DATASETS = PartTable("dataset", BUILTIN_DATASETS, families=DATASET_FAMILIES)
METRICS = PartTable("metric", BUILTIN_METRICS)
LOSSES = PartTable("loss", BUILTIN_LOSSES)
TRANSFORMS = PartTable("transform", BUILTIN_TRANSFORMS)
OPTIMIZERS = PartTable("optimizer", BUILTIN_OPTIMIZERS)
SCHEDULERS = PartTable("scheduler", BUILTIN_SCHEDULERS)


@dataclass(frozen=True)
class Kind:
    """One kind of part: its rows, names that cannot be supported, with the reason, and short names."""

    noun: str
    rows: PartTable
    unsuitable: Mapping[str, str] = field(default_factory=dict)
    short: Mapping[str, str] = field(default_factory=dict)


KINDS: Mapping[KindName, Kind] = {
    "method": Kind("a pruning method", METHODS, short=SHORT_NAMES),
    "network": Kind("a network", NETWORKS, UNSUITABLE_NETWORKS),
    "dataset": Kind("a data set", DATASETS),
    "metric": Kind("a metric", METRICS),
    "loss": Kind("a loss", LOSSES, UNSUITABLE_LOSSES),
    "transform": Kind("a transform", TRANSFORMS, UNSUITABLE_TRANSFORMS),
    "optimizer": Kind("an optimizer", OPTIMIZERS, UNSUITABLE_OPTIMIZERS),
    "scheduler": Kind("a learning-rate scheduler", SCHEDULERS, UNSUITABLE_SCHEDULERS),
}


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
    """Return the row of `name`: a full name, a method's short name, a family's member, or a foreign part's import path.

    Raises ConfigError for a name that is unknown (with the nearest choice) or unsupported (with the reason).
    """
    return KINDS[kind].rows[resolve_name(kind, name)]


def resolve_name(kind: KindName, name: str, folder: Path | None = None) -> str:
    """Return the name used in specs: the full name of a method, `name@digest of its sources` for a foreign part.

    `folder`: the experiment file's, searched for modules first. Raises ConfigError like `find`.
    """
    known = KINDS[kind]
    name = known.short.get(name, name)
    try:
        return known.rows.resolve(name, folder)
    except KeyError:
        pass
    if name in known.unsuitable:
        raise ConfigError(f"{name!r} {known.unsuitable[name]}")
    raise ConfigError(f"{name!r} is not {known.noun}{nearest(name, [*known.rows.choices, *known.short])}")


class _Component(Protocol):
    @property
    def type(self) -> str: ...
    @property
    def kwargs(self) -> dict[str, Any]: ...


def metric_label(component: _Component) -> str:
    """Return the name of a metric in results: its type and its distinguishing keywords, such as "TopK5"."""
    row = find("metric", component.type) if ":" in component.type else METRICS.get(component.type)
    defaults = row.defaults if row else {}
    shown = row.shown if row else ()
    keywords = {**defaults, **component.kwargs}
    label = row.name if row else component.type
    for name in sorted(keywords):
        if name in shown:
            label += str(keywords[name])
        elif name not in defaults or keywords[name] != defaults[name]:
            label += f",{name}={keywords[name]}"
    return label
