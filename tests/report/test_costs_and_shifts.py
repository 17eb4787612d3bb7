"""Axes of the plot beside compression, total compute, excess error and likeness to the unpruned network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from luigi_prune.analysis.aggregate import Aggregated, aggregate_results
from luigi_prune.analysis.leaderboard import leaderboard
from luigi_prune.analysis.verdict import pairwise, verdict
from luigi_prune.report.captioned_plots import main_plots
from luigi_prune.report.chart_axes import chart_axes
from luigi_prune.report.compute_table import behind_level, compute_table
from luigi_prune.report.curves import measured_metric
from luigi_prune.report.glance import cost_sentences, glance_table
from luigi_prune.report.markdown import settings_text
from luigi_prune.report.result_flags import all_results_table
from luigi_prune.report.shift_tables import agreement_table, excess_of, excess_table
from luigi_prune.report.style import MethodStyle, method_styles
from tests.blank_pictures import dots
from tests.synthetic import FakeResult, make_grid, read

METHODS = ("ReferenceNet", "FakeNet", "ThresNet", "UniNet")
RATIOS = (0.5, 0.25)
GUESSES = np.arange(100, dtype=np.uint8) % 10


def read_more(path: str) -> FakeResult:
    """Return a result that also has guesses, of which ThresNet changes 8 %, latencies and seconds."""
    result, (_, net, *rest) = read(path), path.split("/")
    guess = np.roll(GUESSES, int(net) // 2)  # nets 0 and 1 agree, net 2 with neither
    method = rest[2] if len(rest) > 1 else "ReferenceNet"
    if method == "ThresNet":
        guess = guess.copy()
        guess[:8] += 1
    seconds = (
        {"trainbase_seconds": 60.0} if method == "ReferenceNet" else {"prune_seconds": 2.0, "retrain_seconds": 10.0}
    )
    speed = {} if method in ("ReferenceNet", "FakeNet") else {"latency_compact_ratio": 0.5, "latency_masked_ratio": 1.0}
    measured = {**result.measured, **{name: np.float64(value) for name, value in (seconds | speed).items()}}
    return FakeResult({**result.arrays, "classes/guess": guess}, measured)


def made(mode: str = "cascade", nets: int = 3, reader: Any = read_more) -> Aggregated:
    return aggregate_results(make_grid(METHODS, RATIOS, nets, 1, ("Digits", "Noisy"), mode), reader)


def styles(tables: Aggregated) -> list[MethodStyle]:
    return method_styles(METHODS, tables.arrays["method/nominal"].tolist(), {}, {})


@pytest.mark.parametrize(("mode", "total"), [("cascade", [72, 84]), ("retrain", [72, 72])])
def test_the_plot_has_axes_for_speed_and_time_if_they_were_measured(mode: str, total: list[float]) -> None:
    tables = made(mode)
    axes = {axis.name: axis for axis in chart_axes(tables.arrays, tables.measured, tables.meta)}
    assert list(axes) == ["parameters", "FLOPs", "latency", "time"]
    assert axes["latency"].values[:, 2].tolist() == pytest.approx([2, 2])
    assert np.isnan(axes["latency"].values[:, :2]).all()  # a control has no latency of its own
    assert axes["time"].unit == "s"
    assert axes["time"].values[:, 2].tolist() == pytest.approx(total)
    bare = made(mode, reader=read)
    assert [axis.name for axis in chart_axes(bare.arrays, bare.measured, bare.meta)] == ["parameters", "FLOPs"]


def test_total_compute_is_that_of_the_networks_of_the_leaderboard() -> None:
    tables = made("cascade")
    arrays, measured, meta = tables
    found, quality = verdict(arrays, meta, "Digits", "TopK1"), measured_metric(arrays, "Digits", "TopK1")
    assert found is not None
    behind = behind_level(arrays, measured, meta, found)
    table = compute_table(behind, leaderboard(arrays, measured, found), found, styles(tables), quality, {})
    assert table is not None
    for row, method in zip(table.rows, found.order, strict=True):
        assert row[4] in ("72 s", "84 s", "76 s", "80 s")  # some nets stand at the first, some at the second ratio
        assert float(row[5].rstrip("×")) == pytest.approx(float(behind[method].total) / 60, rel=1e-2)
    (sentence,) = cost_sentences(behind, None, styles(tables))
    beyond = [float(each.pruning + each.retraining) for each in behind.values()]
    for seconds in (min(beyond), max(beyond)):
        assert f"{seconds:.3g} s" in sentence
    assert sentence.endswith("after 60 s of training.")
    assert behind_level(arrays, {}, meta, found) == {}


def test_excess_error_has_a_row_per_method_and_a_column_per_shifted_set() -> None:
    tables = made()
    found, quality = (
        (verdict(tables.arrays, tables.meta, "Digits", "TopK1")),
        measured_metric(tables.arrays, "Digits", "TopK1"),
    )
    assert found is not None
    nominal, errors = excess_of(tables.arrays, tables.meta, "TopK1")
    table = excess_table(nominal, errors, found.order, styles(tables), quality)
    assert table is not None
    assert table.columns == ("method", "Noisy")
    slopes = {error.method: 100 * error.slope.mean for error in errors}
    for row, method in zip(table.rows, found.order, strict=True):
        assert float(row[1].rstrip("*")) == pytest.approx(slopes[method], abs=0.051)
    assert excess_table(nominal, [], found.order, styles(tables), quality) is None


def test_likeness_is_counted_against_the_unpruned_network_of_the_same_net() -> None:
    tables = made()
    found = verdict(tables.arrays, tables.meta, "Digits", "TopK1")
    assert found is not None
    assert tables.arrays["agreement_unpruned/Digits"][:2].tolist() == [1.0, 0.0]
    table = agreement_table(tables.arrays, found, styles(tables))
    assert table is not None
    rows = {str(row[0]): list(row[1:]) for row in table.rows}
    assert rows == {"ThresNet": ["92.0", "92.0"], "UniNet": ["100.0", "100.0"], "FakeNet": ["100.0", "100.0"]}
    assert "agree on 50.0 %" in table.caption
    lost = {"Digits/1/ReferenceNet"}  # without the unpruned network of a net, its others are compared with nothing
    grid = make_grid(METHODS, RATIOS, 3, 1, ("Digits",))
    cells = grid["cells"]["Digits"][1]
    grid["cells"]["Digits"][1] = [
        [[None if path in lost else path for path in row] for row in ratio] for ratio in cells
    ]
    arrays = aggregate_results(grid, read_more).arrays
    assert np.isfinite(arrays["agreement/Digits"][..., 2]).all(axis=(1, 2)).tolist() == [True, False, True]
    assert agreement_table(made(reader=read).arrays, found, styles(tables)) is None


def test_a_control_of_one_network_has_one_row_and_settings_name_the_methods_that_were_run() -> None:
    tables = made("retrain")
    for name in [name for name in tables.arrays if name.startswith("test/")]:
        tables.arrays[name][..., 1] = tables.arrays[name][:, :1, :, 1]
    quality = measured_metric(tables.arrays, "Digits", "TopK1")
    rows = all_results_table(tables.arrays, styles(tables), [quality], {}, "Digits").rows
    assert [tuple(row[:3]) for row in rows[:3]] == [
        ("ReferenceNet", "–", "1.0×"), ("FakeNet", "–", "1.0×"), ("ThresNet", "0.5", "2.0×"),
    ]  # fmt: skip
    text = settings_text({"experiments": {"methods": ["UniNet"]}, "networkNames": {"UniNet": "U", "ThresNet": "WT"}})
    assert "U\n" in text
    assert "WT" not in text


@pytest.mark.parametrize(
    ("nets", "worse", "word"), [(5, 0.1, "indicative"), (8, 0.1, "yes, p 0.0078"), (8, 0.0, "no"), (1, 0.1, "no")]
)
def test_the_first_screen_says_whether_the_best_is_significant(nets: int, worse: float, word: str) -> None:
    tables = made(nets=nets)
    values = tables.arrays["test/Digits/TopK1"]
    noise = np.random.default_rng(0).normal(0, 0.001, values[..., 3].shape)
    values[..., 3] = values[..., 2] - worse + noise
    quality = measured_metric(tables.arrays, "Digits", "TopK1")
    table = glance_table([pairwise(tables.arrays, "Digits", "TopK1", 2.0)], styles(tables), quality)
    ((compression, best, significant, others),) = table.rows
    assert (compression, significant) == ("2×", word)
    assert best == "ThresNet" or not worse
    assert (others == "none") == (word != "no")
    assert ("cannot give" in table.caption) == (nets < 6)


@pytest.mark.parametrize("nets", [2, 3])
def test_two_nets_have_no_bands(nets: int) -> None:
    tables = made(nets=nets)
    quality = measured_metric(tables.arrays, "Digits", "TopK1")
    with dots():
        (plot, *_) = main_plots(
            tables.arrays, tables.meta, styles(tables), {"Digits": [quality]}, np.ones(2, dtype=bool), [], None
        )
    assert ("Bands" in plot.caption) == (nets > 2)
