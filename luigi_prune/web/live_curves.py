"""Losses and metrics per epoch of a training: from its result if it has ended, else from its TensorBoard logs."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from luigi_prune.web.confined_files import ConfinedFiles

Curves = dict[str, list[tuple[int, float]]]  # by name: (epoch, value), epochs from 1
_NAMES = {"train_loss": "train/loss", "validation_loss": "validation/loss"}
_MAX_FILES = 50  # attempts of one training


def from_result(file: h5py.File) -> Curves:
    """Return the curves in a result; {} if it is not that of a training."""
    history = inner(file, "history")
    if not isinstance(history, h5py.Group) or not isinstance(epochs := inner(history, "epoch"), h5py.Dataset):
        return {}
    curves: Curves = {}
    steps = [int(epoch) + 1 for epoch in epochs[()]]

    def collect(group: h5py.Group, prefix: str) -> None:
        for name in group:
            item = inner(group, name)
            if isinstance(item, h5py.Group):
                collect(item, f"{prefix}{name}/")
            elif isinstance(item, h5py.Dataset) and item.shape == epochs.shape and prefix + name != "epoch":
                values = np.asarray(item[()], dtype=float)
                points = [(step, float(value)) for step, value in zip(steps, values, strict=True)]
                curves[_NAMES.get(prefix + name, prefix + name)] = [point for point in points if np.isfinite(point[1])]

    collect(history, "")
    return curves


def inner(group: h5py.Group, name: str) -> Any:
    """Return a group or dataset whose bytes are in the file itself; None if it is missing or links to another file."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    item = group[name]
    if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
        return None
    return item


def from_events(files: ConfinedFiles, folder: str, names: frozenset[str]) -> Curves:
    """Return the curves in the event files `names` of a folder, one file per attempt.

    An attempt that was resumed replaces what the one before it logged from the same epoch on.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    logged: dict[str, dict[int, float]] = {}
    for name in sorted(name for name in names if name.startswith("events.out.tfevents."))[-_MAX_FILES:]:
        first: int | None = None
        try:
            for data in RawEventFileLoader(str(files.path(f"{folder}/{name}"))).Load():
                event = Event.FromString(data)
                if not event.HasField("summary"):
                    continue
                if first is None:
                    first = event.step
                    logged = {tag: {e: v for e, v in points.items() if e < first} for tag, points in logged.items()}
                for value in event.summary.value:
                    logged.setdefault(value.tag, {})[event.step] = value.simple_value
        except Exception:  # a file that is being written, or damaged: what was read so far is shown
            continue
    return {
        tag: [(epoch + 1, value) for epoch, value in sorted(points.items()) if np.isfinite(value)]
        for tag, points in logged.items()
    }
