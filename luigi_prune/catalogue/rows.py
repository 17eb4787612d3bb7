"""The records of the catalogue: strings and numbers only, so that a misspelt name is refused without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Granularity = Literal["none", "weight", "filter", "channel", "rank"]
Selection = Literal["top", "sample", "mixed", "none"]


@dataclass(frozen=True)
class MethodRow:
    """A pruning method as score x allocation x granularity x selection, and how it is shown.

    `short` is accepted in experiment files beside `name`. `needs_data` says that the score reads calibration batches,
    `randomised` that repetitions differ, `retrained` that pruning is followed by retraining, `from_original` that every
    step of a cascade begins with the original network. `use`: when to take it.
    """

    name: str
    short: str
    label: str
    color: str
    granularity: Granularity
    score: str
    allocation: str
    selection: Selection
    needs_data: bool
    randomised: bool
    retrained: bool
    paper: str
    summary: str
    from_original: bool = False
    use: str = ""


@dataclass(frozen=True)
class NetworkRow:
    """A network: the `module:function` that builds it."""

    name: str
    path: str
    summary: str


@dataclass(frozen=True)
class DatasetRow:
    """A data set: its loader, its number of classes and the shape (channels, height, width) of its images."""

    name: str
    path: str
    num_classes: int
    input_shape: tuple[int, int, int]
    summary: str


@dataclass(frozen=True)
class ClassRow:
    """A class that is built from keywords: those it must be given and those it may be given."""

    name: str
    path: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def keywords(self) -> tuple[str, ...]:
        """All keywords of the class."""
        return self.required + self.optional


@dataclass(frozen=True)
class OptimizerRow(ClassRow):
    """An optimizer; `closure` says that its step wants a function that evaluates the loss again."""

    closure: bool = False


@dataclass(frozen=True)
class SchedulerRow(ClassRow):
    """A learning-rate scheduler; `epochs` are the keywords that count steps and may stand in `stepKwargs`."""

    epochs: tuple[str, ...] = ()


@dataclass(frozen=True)
class LossRow(ClassRow):
    """A loss; `targets` says whether it takes class numbers or one real number per output (one-hot classes)."""

    targets: Literal["class", "real"] = "class"

    @property
    def reductions(self) -> tuple[str, ...]:
        """The values of `reduction` that give one number per batch."""
        return ("mean", "sum", "batchmean") if self.name == "KLDivLoss" else ("mean", "sum")


@dataclass(frozen=True)
class MetricRow(ClassRow):
    """A metric; the keywords in `shown` are always part of its label, others where they differ from `defaults`."""

    defaults: dict[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class TransformRow(ClassRow):
    """An image transform; `choices` are the texts that some of its keywords take."""

    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)


Row = TypeVar("Row", MethodRow, NetworkRow, DatasetRow, OptimizerRow, SchedulerRow, LossRow, MetricRow, TransformRow)


def by_name(rows: Iterable[Row]) -> dict[str, Row]:
    """Return the rows under their names; two of one name are a programming error."""
    table: dict[str, Row] = {}
    for row in rows:
        if row.name in table:
            raise ValueError(f"two rows are called {row.name}")
        table[row.name] = row
    return table
