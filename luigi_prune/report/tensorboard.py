"""TensorBoard logs: scalars per epoch while a network trains, and the report's scalars, texts and images."""

from __future__ import annotations

import itertools
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from luigi_prune.analysis.statistics import by_run, spread
from luigi_prune.report.hyperparameters import session

if TYPE_CHECKING:
    from luigi_prune.analysis.leaderboard import LeaderboardRow
    from luigi_prune.report.style import MethodStyle

_file_numbers = itertools.count()
_FILE_VERSION = "brain.Event:2"
# TensorBoard's steps are whole numbers; relative sizes become steps as in torchprune.
STEPS_PER_UNIT = 10_000


def epoch_log(folder: Path | str) -> Callable[[int, dict[str, float]], None]:
    """Return a function that appends `(epoch, {tag: value})` to TensorBoard's event files in `folder`.

    Each call of `epoch_log` starts a new file, so that a resumed training can log to the folder of the interrupted one;
    TensorBoard then drops what the first logged from the resumed epoch on. Every epoch is on disk when its call
    returns. Values that are not finite are logged as they are.
    """
    folder = Path(folder)
    path: list[Path] = []

    def log(epoch: int, values: dict[str, float]) -> None:
        now = time.time()
        events = [
            Event(
                wall_time=now, step=epoch, summary=Summary(value=[_scalar(tag, value) for tag, value in values.items()])
            )
        ]
        if not path:
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{now:.6f}.{socket.gethostname()}.{os.getpid()}.{next(_file_numbers)}"
            path.append(folder / name)
            start = Event(wall_time=now, step=epoch, session_log=SessionLog(status=SessionLog.START))
            events = [Event(wall_time=now, file_version=_FILE_VERSION), start, *events]
        _append(path[0], events)

    return log


def write_tensorboard(
    arrays: dict[str, np.ndarray],
    meta: dict[str, Any],
    images: Mapping[str, bytes],
    markdown: Mapping[str, str],
    folder: Path | str,
    styles: Sequence[MethodStyle],
    standing: Sequence[LeaderboardRow] = (),
    *,
    wall_time: float = 0.0,
) -> list[Path]:
    """Write one TensorBoard run per method and one named `report` below `folder`; return the event files.

    A run has the method's label as its name, because TensorBoard shows it beside every curve, and the parts of the
    method as hyperparameters. Its scalars are means over nets and repetitions, at step 10,000 x relative size
    (`.../parameters`) or FLOPs (`.../flops`), and the compression at each level of `standing`. `report` holds `images`
    (PNG) and `markdown` as texts. The same tables and `wall_time` give the same bytes.
    """
    folder = Path(folder)
    paths, names = [], run_names(styles)
    rows = {row.method: row for row in standing}
    for at, style in enumerate(styles):
        values = sorted(_method_scalars(arrays, at), key=lambda entry: entry[0])
        if not values:
            continue
        results = _results(rows[at]) if at in rows else {}
        summaries = [*session(style.method, results), *(_scalar(tag, value) for tag, value in results.items())]
        events = [Event(wall_time=wall_time, step=0, summary=Summary(value=[value])) for value in summaries]
        events += [
            Event(wall_time=wall_time, step=step, summary=Summary(value=[_scalar(tag, value)]))
            for step, tag, value in values
        ]
        paths.append(_write(folder / names[at], events, wall_time))
    summaries = [_text(tag, text) for tag, text in markdown.items()] + [_image(tag, png) for tag, png in images.items()]
    experiment = _text("experiment", "\n".join(f"- {name}: {value}" for name, value in meta.items()))
    events = [Event(wall_time=wall_time, step=0, summary=Summary(value=[value])) for value in [experiment, *summaries]]
    return [*paths, _write(folder / "report", events, wall_time)]


def run_names(styles: Sequence[MethodStyle]) -> list[str]:
    """Return a short name per method that is a file name: its label, or the name of its class if that is taken."""
    names: list[str] = []
    for style in styles:
        name = re.sub(r"[^\w.+-]+", "_", style.plain).strip("._") or style.method
        names.append(name if name not in (*names, "report") else style.method)
    return names


def _results(row: LeaderboardRow) -> dict[str, float]:
    """Return what the table of hyperparameters shows of a method."""
    found = {f"compression/within {100 * level:g} %": value.value for level, value in row.compression.items()}
    found |= {"test change at the first level": row.change.mean, "mean change of the curve": row.area.mean}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _method_scalars(arrays: dict[str, np.ndarray], method: int) -> Iterable[tuple[int, str, float]]:
    """Yield step, tag and value of every metric and loss of one method against its size and FLOPs."""
    for cost, name in (("parameters", "cost/size"), ("flops", "cost/flops")):
        x = spread(by_run(arrays[name][..., method])).mean
        for source in arrays:
            if source.startswith("test/"):
                y = spread(by_run(arrays[source][..., method])).mean
                for relative, value in zip(x, y, strict=True):
                    if np.isfinite(relative) and np.isfinite(value):
                        yield round(STEPS_PER_UNIT * float(relative)), f"{source}/{cost}", float(value)


def _scalar(tag: str, value: float) -> Summary.Value:
    return Summary.Value(tag=tag, simple_value=float(value))


def _text(tag: str, text: str) -> Summary.Value:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=shape)
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _image(tag: str, png: bytes) -> Summary.Value:
    width, height = struct.unpack(">II", png[16:24])  # from the PNG's first chunk, IHDR
    return Summary.Value(
        tag=tag, image=Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
    )


def _write(folder: Path, events: Iterable[Event], wall_time: float) -> Path:
    """Write a new event file below `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.out.tfevents.0.report"
    path.unlink(missing_ok=True)
    _append(path, [Event(wall_time=wall_time, file_version=_FILE_VERSION), *events])
    return path


def _append(path: Path, events: Iterable[Event]) -> None:
    with path.open("ab") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))
