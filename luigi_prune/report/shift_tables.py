"""What pruning does beside the nominal test set: excess error on shifted data, likeness to the unpruned network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from luigi_prune.analysis.excess_error import ExcessError, excess_errors, nominal_test_set
from luigi_prune.analysis.inference import ENOUGH_FOR_BOOTSTRAP, mean_interval, over_nets
from luigi_prune.analysis.verdict import Verdict
from luigi_prune.report.cells import NOTHING, Cell, Table, limits, number
from luigi_prune.report.curves import Quality
from luigi_prune.report.figures import Plot
from luigi_prune.report.style import INK, MethodStyle, drawing, settle

Arrays = dict[str, np.ndarray]

MOST_RATIOS = 6
_LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3)))


def excess_of(arrays: Arrays, meta: dict[str, Any], metric: str) -> tuple[str, list[ExcessError]]:
    """Return the nominal test set and the excess errors of a metric on all others."""
    nominal = nominal_test_set(arrays, str(meta["dataset_train"]))
    return nominal, excess_errors(arrays, metric, nominal)


def excess_table(
    nominal: str, found: Sequence[ExcessError], order: Sequence[int], styles: Sequence[MethodStyle], quality: Quality
) -> Table | None:
    """Return the excess error per method and shifted test set, None without shifted sets."""
    test_sets = list(dict.fromkeys(each.test_set for each in found))
    if not test_sets:
        return None
    slopes = {(each.method, each.test_set): each.slope for each in found}
    largest = max((abs(slope.mean) for slope in slopes.values() if np.isfinite(slope.mean)), default=0.0) or 1.0
    rows = []
    for method in order:
        cells: list[str] = [Cell(styles[method].plain, method=method)]
        for test_set in test_sets:
            slope = slopes.get((method, test_set))
            if slope is None:
                cells.append(NOTHING)
                continue
            low, high = quality.scale * slope.low, quality.scale * slope.high
            mark = "*" if slope.excludes_zero else ""
            text = number(slope.mean, scale=quality.scale, digits=1, sign=True) + mark
            cells.append(Cell(text, limits(low, high, "{:+.1f}"), shade=max(0.0, slope.mean) / largest))
        rows.append(tuple(cells))
    unit = f", in {quality.unit} of {quality.label} per 100 % of the parameters" if quality.unit else ""
    expected = 0.05 * len(slopes)
    caption = (
        f"How much more is lost on shifted data than on {nominal} as parameters are pruned (Liebenwein et al. 2021, "
        f"arXiv 2103.03014){unit}: slope of a regression through the origin, mean over nets, with its 95 % interval. "
        f"Above 0, {nominal} flatters pruning. *: the interval excludes 0, which {expected:.2g} of {len(slopes)} "
        "would do by chance."
    )
    columns = ("method", *test_sets)
    return Table("Excess error on shifted data", caption, columns, rows, name="excess-error", matrix=True)


def excess_plot(
    nominal: str, found: Sequence[ExcessError], order: Sequence[int], styles: Sequence[MethodStyle], quality: Quality
) -> Plot | None:
    """Return the regression lines with the bands of the bootstrap, a panel per method; None without shifted sets."""
    test_sets = list(dict.fromkeys(each.test_set for each in found))
    drawn = [method for method in order if any(each.method == method for each in found)]
    if not drawn:
        return None
    lines = dict(zip(test_sets, itertools.cycle(_LINES)))
    with drawing():
        columns = min(4, len(drawn))
        rows = -(-len(drawn) // columns)
        figure = Figure(figsize=(2.5 * columns + 0.8, 2.3 * rows + 0.8), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in list(grid.flat)[len(drawn) :]:
            axes.set_visible(False)
        for axes, method in zip(grid.flat, drawn, strict=False):
            axes.axhline(0.0, color=INK, linestyle=(0, (5, 3)), linewidth=0.8)
            axes.set_title(styles[method].label, fontsize=9)
            for each in (each for each in found if each.method == method):
                _draw_line(axes, each, styles[method], lines[each.test_set], quality.scale)
            axes.set_xlim(0, 1)
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        for axes in grid[-1]:
            axes.set_xlabel("parameters pruned", fontsize=9)
        figure.supylabel(f"error beyond {nominal}'s{f' ({quality.unit})' if quality.unit else ''}", fontsize=10)
        keys = [Line2D([], [], color=INK, linestyle=lines[test_set], label=test_set) for test_set in test_sets]
        figure.legend(handles=keys, loc="outside lower center", ncol=min(3, len(keys)), fontsize=9)
    nets = max(each.line.n for each in found)
    narrow = " With so few nets these are too narrow; the table has Student's t." if nets < ENOUGH_FOR_BOOTSTRAP else ""
    caption = (
        f"Points: networks, the error that pruning adds on a shifted set less the one that it adds on {nominal}. "
        "Lines: regression through the origin over all nets; bands: 95 % of a bootstrap that draws nets." + narrow
    )
    return Plot("excess_error", "Excess error against the share pruned", caption, settle(figure))


def _draw_line(axes: Axes, found: ExcessError, style: MethodStyle, line: Any, scale: float) -> None:
    axes.plot(found.share, scale * found.excess, color=style.color, marker=".", markersize=2.5, alpha=0.4, linestyle="")
    ends = np.asarray([0.0, found.share.max(initial=0.0)])
    axes.plot(ends, scale * found.line.mean * ends, color=style.color, linestyle=line)
    if np.isfinite(found.line.low):
        low, high = (scale * limit * ends for limit in (found.line.low, found.line.high))
        axes.fill_between(ends, low, high, color=style.color, alpha=0.12, linewidth=0)


def agreement_table(arrays: Arrays, found: Verdict, styles: Sequence[MethodStyle]) -> Table | None:
    """Return how many samples a pruned and its unpruned network take for the same class; None if that is not known."""
    values = arrays.get(f"agreement/{found.test_set}")
    if values is None or not np.isfinite(values).any():
        return None
    places = np.unique(np.linspace(0, values.shape[1] - 1, min(MOST_RATIOS, values.shape[1])).round().astype(int))
    controls = [at for at in np.flatnonzero(arrays["method/nominal"]).tolist() if at]
    rows = []
    lowest = 100 * float(np.nanmin(values))
    for method in [*found.order, *controls]:
        cells: list[str] = [Cell(styles[method].plain, method=method)]
        for ratio in places:
            mean = 100 * mean_interval(over_nets(values[:, ratio, :, method])).mean
            shade = (mean - lowest) / max(100 - lowest, 1e-9)
            cells.append(Cell(number(mean, digits=1), shade=shade))
        rows.append(tuple(cells))
    strangers = arrays.get(f"agreement_unpruned/{found.test_set}", np.zeros(0))
    strangers = strangers[np.isfinite(strangers)]
    yardstick = (
        f" Two unpruned networks of different nets agree on {100 * float(strangers.mean()):.1f} %: a network below "
        "that is no closer to its own unpruned network than to a stranger."
        if len(strangers)
        else ""
    )
    caption = (
        f"Share of the samples of {found.test_set} (%), right or wrong, that a pruned network and the unpruned one of "
        f"the same net take for the same class; mean over nets.{yardstick}"
    )
    columns = ("method", *(f"keep {arrays['axes/keep_ratio'][ratio]:.3g}" for ratio in places))
    return Table("Likeness to the unpruned network", caption, columns, rows, name="agreement", matrix=True)
