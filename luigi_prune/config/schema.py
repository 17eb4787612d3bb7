"""The experiment file as frozen models: every key with type, default and description."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Mode = Literal["train", "retrain", "cascade", "cascade-rewind"]
Rules = Literal["paper", "reference"]
AmpType = Literal["float16", "bfloat16"]
SpacingType = Literal["geometric", "linear", "harmonic", "harmonic2", "cubic", "manual"]

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def camel_case(name: str) -> str:
    """Return a field's spelling in experiment files: `num_epochs` -> `numEpochs`, `enable_amp` -> `enableAMP`."""
    first, *rest = name.split("_")
    return first + "".join("AMP" if word == "amp" else word.capitalize() for word in rest)


def _number(value: object, kind: str = "a number") -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected {kind}, got {str(value).lower()}")
    return numbers_from_text(value) if isinstance(value, str) else value


def _unquoted(value: object) -> object:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        raise ValueError(f"expected a number, got the text {value!r}: remove its quotes")
    return _number(value)


class Overflow(float):
    """A number above the largest float: infinite, but shown as it is written."""

    def __new__(cls, text: str) -> Overflow:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


class NotFinite(ValueError):
    """A number that is infinite or NaN; `below`: the keys and indices that lead to it in the value of a field."""

    def __init__(self, value: float, below: tuple[str | int, ...]):
        super().__init__(f"expected a finite number, got {value!r}")
        self.below = below


def numbers_from_text(value: Any, below: tuple[str | int, ...] = ()) -> Any:
    """Return `value` with every numeric string converted to a number, recursively.

    Raises NotFinite, with its path after `below`, for a number that is infinite or NaN.
    """
    if isinstance(value, dict):
        return {key: numbers_from_text(inner, (*below, key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [numbers_from_text(inner, (*below, index)) for index, inner in enumerate(value)]
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value) if value.lstrip("+-").isdigit() else float_of(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise NotFinite(value, below)
    return value


def float_of(text: str) -> float:
    """Return the number, as an `Overflow` if it is too large."""
    return number if math.isfinite(number := float(text)) else Overflow(text)


def _keywords(value: Any) -> Any:
    if value is None:
        return {}
    if isinstance(value, dict):
        invalid = [key for key in value if not isinstance(key, str)]
        if invalid:
            raise ValueError(f"{invalid[0]!r} is not the name of a keyword")
    return numbers_from_text(value)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Integer = Annotated[int, BeforeValidator(partial(_number, kind="an integer"))]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Ratio = Annotated[float, BeforeValidator(_unquoted), Field(allow_inf_nan=False)]
Keywords = Annotated[dict[str, Any], BeforeValidator(_keywords)]
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]


class Settings(BaseModel):
    """Base of all sections: frozen, no unknown keys, camelCase and snake_case both accepted."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=camel_case, populate_by_name=True, protected_namespaces=()
    )


class Component(Settings):
    """A transform or metric: its class name and the keywords of its constructor."""

    type: str = Field(description="Class name.")
    kwargs: Keywords = Field({}, description="Keywords of its constructor.")


class SchedulerComponent(Component):
    """A learning-rate scheduler, stepped at every optimization step."""

    step_kwargs: Keywords = Field(
        {}, description="Keywords of its constructor in epochs, converted to optimization steps."
    )


class NetworkConfig(Settings):
    """The network and its data set."""

    name: str = Field(description="Name of the network.")
    dataset: str = Field(description="Data set for training, validation and, by default, the test.")
    output_size: Integer = Field(ge=1, description="Number of outputs; by default the data set's number of classes.")
    kwargs: Keywords = Field({}, description="Further keywords of the function that builds the network.")
    weights: str | None = Field(
        None,
        min_length=1,
        description="Weights that training starts from: a file (.pt, .pth, .safetensors), or torchvision's name of "
        "some (`IMAGENET1K_V1`). With `training.numEpochs: 0` that network is pruned as it is.",
    )
    new_layers: Names = Field(
        (), description="Layers that keep random weights, and are not read from `weights`: names, or patterns."
    )


class TrainingConfig(Settings):
    """How a network is trained: data, loss, metrics, optimizer, schedule."""

    batch_size: Integer = Field(128, ge=1, description="Samples per optimization step, over all processes together.")
    test_batch_size: Integer = Field(ge=1, description="Samples per step of an evaluation; by default `batchSize`.")
    transforms_train: tuple[Component, ...] = Field((), description="Transforms of the training data, in order.")
    transforms_test: tuple[Component, ...] = Field((), description="Transforms of validation and test data, in order.")
    transforms_final: tuple[Component, ...] = Field(
        (Component(type="ToTensor"),), description="Transforms of all data, after those."
    )
    loss: str = Field("CrossEntropyLoss", description="Class name of the loss.")
    loss_kwargs: Keywords = Field({}, description="Keywords of the loss.")
    metrics_test: tuple[Component, ...] = Field(
        (Component(type="TopK", kwargs={"topk": 1}), Component(type="TopK", kwargs={"topk": 5})),
        min_length=1,
        description="Metrics; early stopping and the report use the first. Retraining has those of training.",
    )
    optimizer: str = Field("SGD", description="Class name of the optimizer, from torch.optim.")
    optimizer_kwargs: Keywords = Field({}, description="Keywords of the optimizer.")
    enable_amp: bool = Field(True, description="Mixed precision; unused on a CPU, with a warning.")
    amp_dtype: AmpType = Field(
        "float16", description="Type of mixed precision: `float16`, with scaled gradients, or `bfloat16`."
    )
    micro_batch_size: Integer | None = Field(
        None,
        ge=1,
        description="Largest number of samples per forward and backward pass, over all processes together; the "
        "gradients of a step's passes add up. By default the whole batch. BatchNorm normalises over one pass.",
    )
    channels_last: bool = Field(
        False, description="Weights and images with channels as the last axis in memory, which GPUs convolve faster."
    )
    compile: bool = Field(
        False, description="Training steps run the network through torch.compile; needs a C++ compiler."
    )
    num_epochs: Integer = Field(90, ge=0, description="Epochs of the whole schedule.")
    early_stop_epoch: Integer = Field(
        ge=0,
        description="First epoch of early stopping (best validated weights); by default `numEpochs`: never.",
    )
    lr_schedulers: tuple[SchedulerComponent, ...] = Field((), description="Learning-rate schedulers, stepped in order.")
    start_epoch: Integer = Field(
        0, ge=0, description="First epoch of the schedule in retraining; no effect in `training`."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Set the defaults of `test_batch_size` and `early_stop_epoch`, which depend on other fields."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for name, source in (("test_batch_size", "batch_size"), ("early_stop_epoch", "num_epochs")):
            if not {name, camel_case(name)} & set(filled):
                default = cls.model_fields[source].default
                filled[name] = filled.get(source, filled.get(camel_case(source), default))
        return filled


class SpacingConfig(Settings):
    """A series of keep ratios; several are concatenated."""

    type: SpacingType = Field(description="How the ratios are spaced.")
    num_intervals: Number | None = Field(
        None,
        gt=0,
        description="Number of ratios; for `harmonic` the number down to 1/2, which may be fractional.",
    )
    max_val: Number | None = Field(None, description="First and largest keep ratio; unused by `harmonic`.")
    min_val: Number | None = Field(None, description="Last and smallest keep ratio.")
    values: tuple[Ratio, ...] | None = Field(None, description="The keep ratios of `manual`.")


class PlottingConfig(Settings):
    """The range of keep ratios in plots."""

    min_val: Number = Field(0.0, ge=0, le=1, description="Smallest keep ratio shown.")
    max_val: Number = Field(1.0, ge=0, le=1, description="Largest keep ratio shown.")


class ExperimentsConfig(Settings):
    """The methods to compare, their keep ratios and repetitions."""

    methods: tuple[str, ...] = Field(
        description="Pruning methods by class or short name; ReferenceNet is always first."
    )
    mode: Mode = Field(
        description="`train`: no pruning; `retrain`: every ratio from the trained network; `cascade`: every ratio from "
        "the previous one; `cascade-rewind`: the same with weights rewound to `retraining.startEpoch`."
    )
    num_repetitions: Integer = Field(1, ge=1, description="Repetitions of pruning and retraining per trained network.")
    num_nets: Integer = Field(1, ge=1, description="Networks trained from different seeds.")
    plotting: PlottingConfig = Field(PlottingConfig(), description="Range of the plots.")
    spacing: tuple[SpacingConfig, ...] = Field((), description="The keep ratios.")
    retrain_iterations: Integer = Field(
        -1, ge=-1, description="Number of ratios that are retrained; the others are pruned only. -1: all."
    )
    dataset_test: Names = Field((), description="Test set or list of test sets; by default `network.dataset`.")
    seed: Integer = Field(0, ge=0, description="Seed of all random draws.")
    rules: Rules = Field(
        "paper", description="`paper`, or `reference`: as torchprune, where it departs from the papers."
    )
    ignore_layers: Names = Field(
        (),
        description="Layers excluded from pruning: names of modules, or patterns (`layer1.*`). Keep ratios are still "
        "those of the whole network.",
    )
    include_layers: Names = Field(
        (),
        description="Embeddings that are pruned, too: names of modules, or patterns; for methods of single weights.",
    )
    measure_latency: bool = Field(
        False,
        description="Measure in every evaluation how long the network takes for a batch of eight samples: dense, "
        "masked, and compact, without the channels that can be removed. The report shows it beside the multiply-adds.",
    )


class Directories(Settings):
    """Folders, relative to the working directory; `luigi.cfg [directories]` overrides it."""

    results: str = Field("./data/results", min_length=1, description="Results and reports.")
    trained_networks: str | None = Field(None, description="Trained networks; by default below the results.")
    training_data: str = Field("./data/training", description="Data sets, for instance on a shared drive.")
    local_data: str = Field("./local", description="Fast local copy of the data sets.")
    modules: str | None = Field(
        None, description="Folder of modules named by import paths; by default that of the experiment file."
    )


class CoresetConfig(Settings):
    """Constants of the sensitivity-based methods."""

    delta_s: Number = Field(
        1e-16,
        gt=0,
        lt=16,  # from there on the sampling error of a layer with one patch and one kernel position is imaginary
        description="Failure probability of the empirical sensitivity, which determines the number of calibration "
        "samples. Values of 1 and more guarantee nothing; they give the smallest numbers of a sweep.",
    )


class Experiment(Settings):
    """One experiment, or one member of a sweep, with includes and defaults resolved."""

    name: str
    network: NetworkConfig
    training: TrainingConfig
    retraining: TrainingConfig
    experiments: ExperimentsConfig
    directories: Directories = Directories()
    coresets: CoresetConfig = CoresetConfig()
    network_names: dict[str, str] = {}
    network_colors: dict[str, str] = {}
