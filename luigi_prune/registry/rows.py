"""The row classes of the registry: strings and numbers only, so that names are checked without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Granularity = Literal["none", "weight", "filter", "channel", "rank"]
Selection = Literal["top", "sample", "mixed", "none"]

Function = str | Callable[..., Any]  # a name, an import path "module:function", or the function itself

# The kinds of layers whose units are defined; `compute.pruning.problem.layers.takes` decides.
_LAYERS: dict[str, str] = {
    "none": "",
    "weight": "linear, convolutional (grouped and transposed, too), attention, recurrent and bilinear layers",
    "filter": "linear, attention and convolutional layers (transposed and grouped, too, but not depthwise)",
    "channel": "linear, attention and convolutional layers (transposed and grouped, too, but not depthwise)",
    "rank": "linear and attention layers, and ungrouped convolutions along one or two axes",
}


_SUMS = ("weight_sensitivity", "weight_sensitivity_max")  # scores that split sums of products with the layer's input


@dataclass(frozen=True)
class MethodRow:
    """A pruning method as score x allocation x granularity x selection, and its label and colour in reports.

    `short`: an alternative to `name` in experiment files. `needs_data`: the score reads calibration batches.
    `randomised`: repetitions differ. `retrained`: pruning is followed by retraining. `from_original`: every step of a
    cascade starts from the original network. `use`: when to use it. Without a `color` the report picks one.
    """

    name: str
    short: str = ""
    label: str = ""
    color: str = ""
    granularity: Granularity = "filter"
    score: Function = "filter_l2"
    allocation: Function = "uniform"
    selection: Selection = "top"
    needs_data: bool = False
    randomised: bool = False
    retrained: bool = True
    paper: str = ""
    summary: str = ""
    from_original: bool = False
    use: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "short", self.short or self.name)
        object.__setattr__(self, "label", self.label or self.name)

    @property
    def layers(self) -> str:
        """The kinds of layers that the method prunes."""
        return _LAYERS[self.granularity]

    @property
    def no_embeddings(self) -> str:
        """Why the method cannot prune embeddings, which have only weights and add up nothing; empty if it can."""
        if self.granularity not in ("none", "weight"):
            return f"prunes {self.granularity}s, which embeddings do not have"
        return "ranks weights by shares of a sum, which embeddings do not have" if self.score in _SUMS else ""

    @property
    def score_name(self) -> str:
        """The score as text."""
        return import_path(self.score)


def import_path(function: Function) -> str:
    """Return the name or import path of a function."""
    return function if isinstance(function, str) else f"{function.__module__}:{function.__qualname__}"


@dataclass(frozen=True)
class ClassRow:
    """A class or function at `path`, called with required and optional keywords.

    `open_ended`: the signature is not fully known, so other keywords are accepted, too.
    """

    name: str
    path: Function
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    open_ended: bool = field(default=False, kw_only=True)

    @property
    def keywords(self) -> tuple[str, ...]:
        """All keywords that are known."""
        return self.required + self.optional


@dataclass(frozen=True)
class NetworkRow(ClassRow):
    """A network: a function of (input shape, output size) and the keywords in `network.kwargs`.

    `smallest`: the edge length in pixels that its images need.
    """

    summary: str = ""
    smallest: int = 1


@dataclass(frozen=True)
class DatasetRow:
    """A data set: its loader, its number of classes (None: regression) and the shape of its inputs, if known.

    The shape of images is (channels, height, width), that of several inputs a tuple or dictionary of shapes.
    """

    name: str
    path: Function
    num_classes: int | None = None
    input_shape: Any = None
    summary: str = ""


@dataclass(frozen=True)
class OptimizerRow(ClassRow):
    """An optimizer; `closure`: its step takes a function that re-evaluates the loss."""

    closure: bool = False


@dataclass(frozen=True)
class SchedulerRow(ClassRow):
    """A learning-rate scheduler; `epochs`: the keywords that count steps and may be given in `stepKwargs`."""

    epochs: tuple[str, ...] = ()


@dataclass(frozen=True)
class LossRow(ClassRow):
    """A loss; `targets`: class indices, or one real number per output (one-hot classes)."""

    targets: Literal["class", "real"] = "class"

    @property
    def reductions(self) -> tuple[str, ...]:
        """The values of `reduction` that return a scalar."""
        return ("mean", "sum", "batchmean") if self.name == "KLDivLoss" else ("mean", "sum")


@dataclass(frozen=True)
class MetricRow(ClassRow):
    """A metric; the keywords in `shown` are always part of its label, others if they differ from `defaults`.

    `higher_is_better` None: taken from the attribute of the class, as torchmetrics defines it.
    """

    defaults: dict[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class TransformRow(ClassRow):
    """An image transform; `choices`: the valid strings of some keywords."""

    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)


Row = TypeVar("Row", MethodRow, NetworkRow, DatasetRow, OptimizerRow, SchedulerRow, LossRow, MetricRow, TransformRow)


def by_name(rows: Iterable[Row]) -> dict[str, Row]:
    """Return the rows by name; raises ValueError for a duplicate name."""
    table: dict[str, Row] = {}
    for row in rows:
        if row.name in table:
            raise ValueError(f"two rows are called {row.name}")
        table[row.name] = row
    return table
