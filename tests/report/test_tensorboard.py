"""What TensorBoard itself reads back from our logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from luigi_prune.analysis.aggregate import aggregate_results
from luigi_prune.analysis.leaderboard import leaderboard
from luigi_prune.analysis.verdict import verdict
from luigi_prune.registry import METHODS
from luigi_prune.report.style import method_styles
from luigi_prune.report.tensorboard import epoch_log, write_tensorboard
from tests.synthetic import make_grid, read

# A PNG of 3 x 2 pixels, made of its three chunks: only the first is read.
PNG = bytes.fromhex("89504e470d0a1a0a0000000d494844520000000300000002080200000000000000")


def accumulated(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, pytest.approx(event.value)) for event in accumulated(folder).Scalars(tag)]


def test_epochs_are_logged_as_they_come(tmp_path: Path) -> None:
    log = epoch_log(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    log(0, {"loss": 2.0, "validation/TopK1": 0.5})
    assert scalars(tmp_path / "run", "loss") == [(0, 2.0)]
    log(1, {"loss": 1.0, "validation/TopK1": 0.75})
    assert scalars(tmp_path / "run", "loss") == [(0, 2.0), (1, 1.0)]
    assert scalars(tmp_path / "run", "validation/TopK1") == [(0, 0.5), (1, 0.75)]


def test_a_resumed_training_overrides_what_it_repeats(tmp_path: Path) -> None:
    first = epoch_log(tmp_path)
    for epoch in range(4):
        first(epoch, {"loss": 10.0 + epoch})
    again = epoch_log(tmp_path)
    for epoch in range(2, 5):
        again(epoch, {"loss": 20.0 + epoch})
    assert scalars(tmp_path, "loss") == [(0, 10.0), (1, 11.0), (2, 22.0), (3, 23.0), (4, 24.0)]


def test_the_report_has_scalars_texts_and_images(tmp_path: Path) -> None:
    tables = aggregate_results(make_grid(), read)
    styles = method_styles(
        [str(name) for name in tables.arrays["axes/method"]], [True, False, False, False], {"ThresNet": "$W$ T"}, {}
    )
    found = verdict(tables.arrays, tables.meta, "Digits", "TopK1")
    assert found is not None
    standing = leaderboard(tables.arrays, {}, found)
    paths = write_tensorboard(
        tables.arrays, tables.meta, {"plots/one": PNG}, {"report": "# Title ±"}, tmp_path / "tb", styles, standing
    )
    assert all("tfevents" in path.name for path in paths)
    size, metric = (tables.arrays[name][..., 1].mean(axis=(0, 2)) for name in ("cost/size", "test/Digits/TopK1"))
    expected = sorted((round(1e4 * float(x)), float(y)) for x, y in zip(size, metric, strict=True))
    assert scalars(tmp_path / "tb" / "W_T", "test/Digits/TopK1/parameters") == expected
    tags = accumulated(tmp_path / "tb" / "W_T").summary_metadata
    start = HParamsPluginData.FromString(tags["_hparams_/session_start_info"].plugin_data.content)
    assert start.session_start_info.hparams["score"].string_value == METHODS["ThresNet"].score_name
    row = next(row for row in standing if row.method == 1)
    assert scalars(tmp_path / "tb" / "W_T", "compression/within 1 %") == [(0, row.compression[0.01].value)]
    report = accumulated(tmp_path / "tb" / "report")
    (text,) = report.Tensors("report")
    assert text.tensor_proto.string_val[0].decode() == "# Title ±"
    (image,) = report.Images("plots/one")
    assert (image.width, image.height, image.encoded_image_string) == (3, 2, PNG)


def test_the_report_is_the_same_each_time(tmp_path: Path) -> None:
    tables = aggregate_results(make_grid(nets=1, repetitions=1), read)
    methods = [str(name) for name in tables.arrays["axes/method"]]
    styles = method_styles(methods, [True] + [False] * 3, {}, {})
    written = [
        write_tensorboard(tables.arrays, tables.meta, {}, {"report": "text"}, tmp_path / name, styles) for name in "aab"
    ]
    contents = [[path.read_bytes() for path in paths] for paths in written]
    assert contents[0] == contents[1] == contents[2]
