"""Data sets: training, validation and test samples after the transforms of an experiment."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from luigi_prune import registry
from luigi_prune.compute.data.data_sources import RawData, Source
from luigi_prune.compute.data.foreign_data import check_targets, foreign_data
from luigi_prune.compute.data.sample_order import held_out
from luigi_prune.compute.data.samples import Samples
from luigi_prune.compute.data.validation_files import stored_validation
from luigi_prune.compute.named import resolve
from luigi_prune.compute.network_inputs import leaves
from luigi_prune.config.schema import NetworkConfig, TrainingConfig
from luigi_prune.errors import ConfigError

__all__ = ["RawData", "Samples", "Source", "Splits", "load_raw", "load_splits", "load_test"]

HELD_OUT_FRACTION = 0.1


@dataclass(frozen=True)
class Splits:
    """Samples with the training transforms, two parts of the held-out ones, and the shape of one sample.

    Held out is the validation set that the data set brings, the one in a file of the reference (`validation_files.py`),
    or a tenth. The held-out samples have the test transforms. Half of them are `validation`, which judges networks
    (early stopping, curves); the others are `calibration`, which pruning reads, so that no network is judged on samples
    that shaped it.
    """

    train: Samples
    validation: Samples
    input_shape: Any
    calibration: Samples


@functools.lru_cache(maxsize=4)
def load_raw(name: str, split: str, training_data: str, local_data: str) -> Source:
    """Return the "train" or "test" samples of data set `name`; arrays are cached in memory, read-only.

    Files missing in `training_data` are downloaded to it, and copied to `local_data` if that is another folder.
    """
    row = registry.find("dataset", name)
    if registry.is_foreign(str(row.path)):
        source: Source = foreign_data(row, split, training_data)
    else:
        source = resolve(row.path)(name, split, training_data, local_data)
    if not len(source):
        raise ConfigError(f"{name}: the {split} split has no samples")
    for _, array in leaves([source.images if isinstance(source, RawData) else None, source.targets]):
        if array is not None:
            array.flags.writeable = False
    return source


def load_splits(
    network: NetworkConfig, training: TrainingConfig, *, seed: int, training_data: str, local_data: str
) -> Splits:
    """Return the training, validation and calibration samples of `network.dataset`.

    The split depends only on `seed`. A single held-out sample is in both of the last two.
    """
    source = load_raw(network.dataset, "train", training_data, local_data)
    if not registry.find("loss", training.loss).density:
        check_targets(source, network)
    own = source.validation
    if own is None:
        own = stored_validation(network.dataset, len(source), HELD_OUT_FRACTION, training_data)
    training_indices, *parts = held_out(len(source), HELD_OUT_FRACTION, seed, own)
    train = Samples(source, (*training.transforms_train, *training.transforms_final), training_indices)
    validation, calibration = (
        Samples(source, (*training.transforms_test, *training.transforms_final), indices) for indices in parts
    )
    return Splits(train, validation, train.input_shape, calibration)


def load_test(dataset: str, training: TrainingConfig, *, training_data: str, local_data: str) -> Samples:
    """Return the test samples of `dataset` after the test transforms."""
    source = load_raw(dataset, "test", training_data, local_data)
    return Samples(source, (*training.transforms_test, *training.transforms_final))
