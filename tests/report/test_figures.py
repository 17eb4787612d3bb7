"""Figures show what the tables say, and survive what users put into labels and colours."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from luigi_prune.analysis.aggregate import aggregate_results
from luigi_prune.analysis.commensurate import choose
from luigi_prune.report.figures import COSTS, prunability_figure, quality_figure, within
from luigi_prune.report.panels import chosen_ratios, curve_figure, layer_figure
from luigi_prune.report.style import INK, MethodStyle, inline_svg, method_styles, plain_text, save
from tests.synthetic import make_grid, read

ALL = {"min_val": 0.0, "max_val": 1.0}
METHODS = ("ReferenceNet", "ThresNet", "FilterThresNet", "UniNet")
ARRAYS = aggregate_results(make_grid(METHODS), read).arrays


def styles(labels: dict[str, str] | None = None, colors: dict[str, str] | None = None) -> list[MethodStyle]:
    return method_styles(METHODS, ARRAYS["method/nominal"].tolist(), labels or {}, colors or {})


def line(figure: Figure, label: str) -> np.ndarray:
    (matching,) = [each for each in figure.axes[0].get_lines() if each.get_label() == label]
    return np.asarray(matching.get_xydata())


@pytest.mark.parametrize("cost", COSTS)
def test_lines_are_means_against_the_pruned_share(cost: str) -> None:
    figure = quality_figure(ARRAYS, styles({"ThresNet": "WT"}), "Digits", "TopK1", cost, ALL, "title")
    drawn = line(figure, "WT")
    np.testing.assert_allclose(drawn[:, 0], 1 - ARRAYS[COSTS[cost][0]][..., 1].mean(axis=(0, 2)))
    np.testing.assert_allclose(drawn[:, 1], ARRAYS["test/Digits/TopK1"][..., 1].mean(axis=(0, 2)))
    dashed = line(figure, "ReferenceNet (unpruned)")
    np.testing.assert_allclose(dashed[:, 1], ARRAYS["test/Digits/TopK1"][:, 0, 0, 0].mean())


def test_the_plotted_range_is_that_of_the_settings() -> None:
    assert within(np.array([0.8, 0.5, 0.1]), {"min_val": 0.2, "max_val": 0.6}).tolist() == [False, True, False]
    assert within(np.array([0.8, 0.5]), {"min_val": 0.01, "max_val": 0.02}).tolist() == [True, True]
    figure = quality_figure(ARRAYS, styles(), "Digits", "loss", "parameters", {"min_val": 0.2, "max_val": 0.6}, "title")
    assert len(line(figure, "ThresNet")) == 2


def test_collapsed_networks_are_pointed_at() -> None:
    figure = quality_figure(ARRAYS, styles(), "Digits", "TopK1", "parameters", ALL, "title")
    axes = figure.axes[0]
    bottom = axes.get_ylim()[0]
    assert bottom == pytest.approx(ARRAYS["test/Digits/TopK1"][..., 0].mean() - 0.30)
    hints = [each for each in axes.get_lines() if each.get_marker() == "v" and len(np.asarray(each.get_xdata()))]
    collapsed = (ARRAYS["test/Digits/TopK1"].mean(axis=(0, 2)) < bottom).any(axis=0)
    assert len(hints) == collapsed.sum() > 0


def test_a_single_run_and_holes_can_be_drawn() -> None:
    arrays = {name: values.copy() for name, values in ARRAYS.items()}
    arrays["test/Digits/TopK1"][:, :, :, 2] = np.nan
    figure = quality_figure(arrays, styles(), "Digits", "TopK1", "flops", ALL, "title")
    assert "FilterThresNet" not in [each.get_label() for each in figure.axes[0].get_lines()]


def test_labels_and_colours_of_users() -> None:
    made = styles(
        {"ThresNet": r"$\frac{\ell_1+\ell_2}{2}$", "UniNet": "$bad{"}, {"ThresNet": "black", "UniNet": "no colour"}
    )
    assert [style.plain for style in made] == ["ReferenceNet", "(ℓ1+ℓ2)/2", "FilterThresNet", "$bad{"]
    assert made[1].color == INK  # black would vanish on a dark page
    assert made[3].color.startswith("#")
    quality_figure(ARRAYS, made, "Digits", "TopK1", "parameters", ALL, "title")
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


def test_prunability_bars_are_the_means() -> None:
    chosen = choose(ARRAYS, "Digits")
    figure = prunability_figure(chosen, styles(), [1, 2], (0.01, 0.02), "title")
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx(
        [chosen.pruned[chosen.at(level), :, :, at].mean() for at in (1, 2) for level in (0.01, 0.02)]
    )


def test_files_are_written_and_the_same_each_time(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        figure = quality_figure(ARRAYS, styles(), "Digits", "TopK1", "parameters", ALL, "title")
        written.append([path.read_bytes() for path in save(figure, tmp_path / name / "plot")])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"%PDF")
    assert written[0][1].startswith(b"\x89PNG")
    assert b"CreationDate" not in written[0][0]


def test_inline_svg_is_well_formed_themed_and_has_ids_of_its_own() -> None:
    figures = [
        quality_figure(ARRAYS, styles(), "Digits", label, "parameters", ALL, "title") for label in ("TopK1", "loss")
    ]
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
