"""The row classes of the registry: strings and numbers only, so that names are checked without torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

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
    """A pruning method as score x allocation x granularity x selection, and its label and style in reports.

    `short`: an alternative to `name` in experiment files. `needs_data`: the score reads calibration batches.
    `randomised`: repetitions differ. `retrained`: pruning is followed by retraining. `from_original`: every step of a
    cascade starts from the original network. `reinitialised`: the kept weights are drawn anew, a control. `use`: when
    to use it. Without a `color` or a `marker` (one of matplotlib's) the report picks one.
    """

    name: str
    short: str = ""
    label: str = ""
    color: str = ""
    marker: str = ""
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
    reinitialised: bool = False
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

    `smallest`: the edge length in pixels that its images need; `channels`: their channels, None for any number.
    `settings`: keywords that the name itself gives, such as the depth. `several_inputs`: whether it takes a tuple or
    dictionary of inputs, too.
    """

    summary: str = ""
    smallest: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    several_inputs: bool = field(default=False, kw_only=True)
    density: bool = field(default=False, kw_only=True)
    vectors: bool = field(default=False, kw_only=True)
    channels: int | None = field(default=None, kw_only=True)


def wrong_channels(needed: int, given: int) -> str:
    """Return the end of the message on images whose channels do not fit a network."""
    return (
        f"needs images of {needed} channels, got {given}; add the transform Grayscale with num_output_channels: "
        f"{needed}, or choose another network"
    )


@dataclass(frozen=True)
class DatasetRow:
    """A data set: its loader, its number of classes (None: regression) and the shape of its inputs, if known.

    The shape of images is (channels, height, width), that of several inputs a tuple or dictionary of shapes.
    `labelled` False: the data have no targets, so only densities can be learned from them.
    `masks`: its targets are a class per pixel, and transforms change images and masks together. `test_only`: it has no
    training samples.
    """

    name: str
    path: Function
    num_classes: int | None = None
    input_shape: Any = None
    summary: str = ""
    labelled: bool = field(default=True, kw_only=True)
    masks: bool = field(default=False, kw_only=True)
    test_only: bool = field(default=False, kw_only=True)


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
    """A loss; `targets`: class indices, or one real number per output (one-hot classes).

    `whole_output`: whether it reads a network's output as it is rather than the prediction in it.
    `density`: it reads the outputs of flows, and no targets.
    """

    targets: Literal["class", "real"] = "class"
    whole_output: bool = field(default=False, kw_only=True)
    density: bool = field(default=False, kw_only=True)

    @property
    def reductions(self) -> tuple[str, ...]:
        """The values of `reduction` that return a scalar."""
        special = {"KLDivLoss": ("mean", "sum", "batchmean"), "LossFromInput": ("mean",)}
        return special.get(self.name, ("mean", "sum"))


@dataclass(frozen=True)
class MetricRow(ClassRow):
    """A metric; the keywords in `shown` are always part of its label, others if they differ from `defaults`.

    `higher_is_better` None: taken from the attribute of the class, as torchmetrics defines it. `density`: it reads the
    outputs of flows, and no targets. `placeholder`: it measures nothing, and experiments are planned without it.
    """

    defaults: dict[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    higher_is_better: bool | None = None
    density: bool = field(default=False, kw_only=True)
    placeholder: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class TransformRow(ClassRow):
    """An image transform; `choices`: the valid strings of some keywords; `masks`: it is for images with masks."""

    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    masks: bool = field(default=False, kw_only=True)


Row = TypeVar("Row", MethodRow, NetworkRow, DatasetRow, OptimizerRow, SchedulerRow, LossRow, MetricRow, TransformRow)


@dataclass(frozen=True)
class Family(Generic[Row]):
    """Parts whose names follow a pattern, such as wrn28_10.

    `form`: the names as people write them, `wrn<depth>_<width>`. `pattern`: a regular expression for whole names.
    `row_of`: returns the row of a match; raises ConfigError, without the name, for numbers that no member has.
    `names`: well-known members, for messages and completion.
    """

    form: str
    pattern: str
    row_of: Callable[[re.Match[str]], Row]
    summary: str = ""
    names: tuple[str, ...] = ()


def by_name(rows: Iterable[Row]) -> dict[str, Row]:
    """Return the rows by name; raises ValueError for a duplicate name."""
    table: dict[str, Row] = {}
    for row in rows:
        if row.name in table:
            raise ValueError(f"two rows are called {row.name}")
        table[row.name] = row
    return table
