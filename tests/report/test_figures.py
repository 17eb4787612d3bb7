"""Figures show what the tables say, and survive what users put into labels and colours."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from luigi_prune.analysis.aggregate import aggregate_results
from luigi_prune.analysis.leaderboard import leaderboard
from luigi_prune.analysis.verdict import verdict
from luigi_prune.report.curves import DEPTHS, Quality, curves, depth_shown, measured_metric, within
from luigi_prune.report.figures import COSTS, standing_figure, tradeoff_figure
from luigi_prune.report.html import themed
from luigi_prune.report.panels import chosen_ratios, curve_figure, layer_figure
from luigi_prune.report.style import INK, MethodStyle, inline_svg, method_styles, plain_text, save
from tests.synthetic import make_grid, read

METHODS = ("ReferenceNet", "ThresNet", "FilterThresNet", "UniNet")
TABLES = aggregate_results(make_grid(METHODS), read)
ARRAYS = TABLES.arrays
ALL = np.ones(5, dtype=np.bool_)


def styles(labels: dict[str, str] | None = None, colors: dict[str, str] | None = None) -> list[MethodStyle]:
    return method_styles(METHODS, ARRAYS["method/nominal"].tolist(), labels or {}, colors or {})


def line(figure: Figure, label: str) -> np.ndarray:
    (matching,) = [each for each in figure.axes[0].get_lines() if each.get_label() == label]
    return np.asarray(matching.get_xydata())


def tradeoff(
    label: str = "TopK1",
    cost: str = "parameters",
    shown: np.ndarray = ALL,
    arrays: dict[str, np.ndarray] = ARRAYS,
    looks: list[MethodStyle] | None = None,
) -> tuple[Figure, Quality]:
    found = measured_metric(arrays, "Digits", label)
    made = curves(arrays, found, COSTS[cost][0], shown)
    return tradeoff_figure(made, looks or styles(), found, cost, "title"), found


@pytest.mark.parametrize("cost", COSTS)
def test_lines_are_paired_changes_over_compression(cost: str) -> None:
    drawn = line(tradeoff(cost=cost, looks=styles({"ThresNet": "WT"}))[0], "WT")
    kept, values = ARRAYS[COSTS[cost][0]][..., 1], ARRAYS["test/Digits/TopK1"]
    np.testing.assert_allclose(drawn[:, 0], np.exp(-np.log(kept).mean(axis=(0, 2))))
    np.testing.assert_allclose(drawn[:, 1], 100 * (values[..., 1] - values[..., 0]).mean(axis=(0, 2)))


def test_the_plotted_range_is_that_of_the_settings() -> None:
    assert within(np.array([0.8, 0.5, 0.1]), {"min_val": 0.2, "max_val": 0.6}).tolist() == [False, True, False]
    assert within(np.array([0.8, 0.5]), {"min_val": 0.01, "max_val": 0.02}).tolist() == [True, True]
    shown = within(ARRAYS["axes/keep_ratio"], {"min_val": 0.2, "max_val": 0.6})
    assert len(line(tradeoff("loss", shown=shown)[0], "ThresNet")) == 2


def test_collapsed_networks_are_pointed_at() -> None:
    figure, found = tradeoff()
    made = curves(ARRAYS, found, "cost/size", ALL)
    depth = depth_shown(made, lower=False)
    assert depth in DEPTHS
    axes = figure.axes[0]
    assert axes.get_ylim()[0] == -depth
    hints = [each for each in axes.get_lines() if each.get_marker() == 11 and len(np.asarray(each.get_xdata()))]
    assert len(hints) == sum((curve.change < -depth).any() for curve in made) > 0


def test_less_is_better_is_drawn_upside_down() -> None:
    bottom, top = tradeoff("loss")[0].axes[0].get_ylim()
    assert bottom > 0 > top


def test_a_single_run_and_holes_can_be_drawn() -> None:
    arrays = {name: values.copy() for name, values in ARRAYS.items()}
    arrays["test/Digits/TopK1"][:, :, :, 2] = np.nan
    figure, _ = tradeoff(cost="flops", arrays=arrays)
    assert "FilterThresNet" not in [each.get_label() for each in figure.axes[0].get_lines()]


def test_labels_and_colours_of_users() -> None:
    made = styles(
        {"ThresNet": r"$\frac{\ell_1+\ell_2}{2}$", "UniNet": "$bad{"}, {"ThresNet": "black", "UniNet": "no colour"}
    )
    assert [style.plain for style in made] == ["ReferenceNet", "(ℓ1+ℓ2)/2", "FilterThresNet", "$bad{"]
    assert made[1].color == INK  # black would vanish on a dark page
    assert made[3].color.startswith("#")
    tradeoff(looks=made)
    assert plain_text(r"costs 5\$") == "costs 5$"


def test_more_methods_than_colours_stay_apart() -> None:
    made = method_styles([f"Method{at}" for at in range(36)], [True] + [False] * 35, {}, {})
    assert len({(style.color, style.marker, str(style.linestyle)) for style in made}) == 36


def test_layers_show_shares() -> None:
    ratios = chosen_ratios(ARRAYS["axes/keep_ratio"], np.ones(5, dtype=bool))
    assert ratios == [0, 2, 4]
    budget = layer_figure(ARRAYS, styles(), ratios, "budget", "title")
    pruned = layer_figure(ARRAYS, styles(), ratios, "pruned", "title")
    visible = [axes for axes in budget.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in visible] == list(METHODS[1:])
    for at in range(3):
        assert np.asarray(visible[0].get_lines()[at].get_ydata()).sum() == pytest.approx(1.0)
    drawn = np.asarray(pruned.axes[1].get_lines()[2].get_ydata())
    np.testing.assert_allclose(
        drawn, 1 - (ARRAYS["layers/kept"][:, 4, :, 2] / ARRAYS["layers/total"]).mean(axis=(0, 1))
    )


def test_a_single_epoch_of_retraining_is_a_visible_point() -> None:
    arrays = {name: values.copy() for name, values in ARRAYS.items()}
    for name in ("curves/validation/TopK1", "curves/train/TopK1"):
        arrays[name][..., 1:, :-1] = np.nan
    figure = curve_figure(arrays, styles(), [0], "TopK1", "title")
    assert figure is not None
    assert figure.axes[1].get_lines()[0].get_marker() == "."
    assert figure.axes[0].get_lines()[0].get_marker() == "None"


def test_training_curves_and_their_absence() -> None:
    figure = curve_figure(ARRAYS, styles(), [0, 4], "TopK1", "title")
    assert figure is not None
    drawn = np.asarray(figure.axes[1].get_lines()[0].get_ydata())
    np.testing.assert_allclose(drawn, ARRAYS["curves/validation/TopK1"][:, 0, :, 1].mean(axis=(0, 1)))
    empty = {
        name: np.full_like(values, np.nan) if name.startswith("curves/") else values for name, values in ARRAYS.items()
    }
    assert curve_figure(empty, styles(), [0, 4], "TopK1", "title") is None


def test_compressions_at_levels_are_those_of_the_leaderboard() -> None:
    found = verdict(ARRAYS, TABLES.meta, "Digits", "TopK1")
    assert found is not None
    rows = leaderboard(ARRAYS, {}, found)
    figure = standing_figure(rows, styles(), [0.01, 0.02], "at levels", "title")
    drawn = {
        float(np.asarray(each.get_xdata())[0]) for each in figure.axes[0].get_lines() if each.get_marker() != "None"
    }
    values = [row.compression[level] for row in rows for level in (0.01, 0.02)]
    assert drawn == {value.value for value in values if value.reached}


def test_files_are_written_and_the_same_each_time(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        written.append([path.read_bytes() for path in save(tradeoff()[0], tmp_path / name / "plot")])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"%PDF")
    assert b"<svg" in written[0][1]
    assert b"CreationDate" not in written[0][0]


def test_inline_svg_is_well_formed_themed_and_has_ids_of_its_own() -> None:
    figures = [tradeoff(label)[0] for label in ("TopK1", "loss")]
    first, second = (
        inline_svg(figure, name, 'a "quoted" <text>') for figure, name in zip(figures, ("one", "two"), strict=True)
    )
    root = ElementTree.fromstring(first)
    assert root.get("aria-label") == 'a "quoted" <text>'
    assert "currentColor" in first
    assert INK not in first
    ids, others = (set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second))
    assert not ids & others
    used = set(re.findall(r'href="#([^"]+)"', first)) | set(re.findall(r"url\(#([^)]+)\)", first))
    assert used
    assert used <= ids
    assert f"stroke: {styles()[1].color}; stroke: light-dark({styles()[1].color}, " in themed(first)
