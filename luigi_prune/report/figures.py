"""Figures of the change of quality against compression, and of the compression that methods reach at levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from luigi_prune.analysis.leaderboard import LeaderboardRow
from luigi_prune.report.curves import Curve, Quality, depth_shown
from luigi_prune.report.style import MethodStyle, drawing, plain_text, settle

Arrays = dict[str, np.ndarray]

COSTS = {"parameters": ("cost/size", "parameters"), "flops": ("cost/flops", "FLOPs (multiply-adds)")}


@dataclass(frozen=True)
class Plot:
    """A figure with the name of its files, a title and a self-contained caption."""

    name: str
    title: str
    caption: str
    figure: Figure


def tradeoff_figure(
    made: Sequence[Curve], styles: Sequence[MethodStyle], found: Quality, cost: str, title: str, bands: bool = True
) -> Figure:
    """Return the change of a metric against the factor of compression, one line per method, better is up."""
    with drawing():
        figure = Figure(figsize=(7.6, 4.6), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0.0, color=styles[0].color, linestyle=(0, (5, 3)), linewidth=1.2, label="unpruned")
        if found.zone:
            axes.axhspan(-found.zone, found.zone, color=styles[0].color, alpha=0.1, linewidth=0, label="± 1 sample")
        depth = depth_shown(made, found.lower, found.zone)
        edge = None if depth is None else depth if found.lower else -depth
        for curve in made:
            if bands:
                color = styles[curve.method].color
                axes.fill_between(curve.compression, curve.low, curve.high, color=color, alpha=0.10, linewidth=0)
            _draw_method(axes, styles[curve.method], curve, edge)
        if edge is not None:
            gains = [float(np.max(-curve.change * np.sign(edge))) for curve in made]
            axes.set_ylim(edge, -np.sign(edge) * 1.15 * max(*gains, found.zone or 0.0, 0.06 * abs(edge)))
        elif found.lower:
            axes.invert_yaxis()
        factor_axis(axes, [value for curve in made for value in curve.compression])
        axes.set_xlabel(f"{COSTS[cost][1]}: original over kept")
        axes.set_ylabel(f"change of test {found.label}" + (f" ({found.unit})" if found.unit else ""))
        axes.set_title(title, fontsize=10)
        add_legend(figure, axes)
    return settle(figure)


def factor_axis(axes: Axes, values: Sequence[float]) -> None:
    """Put powers of two on a logarithmic x-axis: 1×, 2×, 4×."""
    finite = [value for value in values if np.isfinite(value) and value > 0]
    last = max(2.0, max(finite, default=2.0))
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(0.97, 0.97 * min(finite, default=1.0)), 1.08 * last)
    axes.xaxis.set_major_locator(FixedLocator([2.0**power for power in range(int(np.log2(last) + 0.2) + 1)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def _draw_method(axes: Axes, style: MethodStyle, curve: Curve, edge: float | None) -> None:
    axes.plot(
        curve.compression,
        curve.change,
        color=style.color,
        marker=style.marker,
        linestyle=style.linestyle,
        label=style.label,
        markeredgewidth=0.4,
        markeredgecolor="white",
    )
    if edge is not None:
        beyond = curve.compression[curve.change * np.sign(edge) > abs(edge)][:1]
        # 11: a caret that points down and stands on its point
        edges = np.full(len(beyond), edge)
        (hint,) = axes.plot(beyond, edges, marker=11, color=style.color, markersize=8, clip_on=False, linestyle="")
        hint.set_in_layout(False)


def add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend below the plot, with as many columns as its labels leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    longest = max(len(plain_text(label)) for label in labels)
    columns = max(1, min(4, len(labels), int(figure.get_size_inches()[0] * 13 / (longest + 7))))
    figure.legend(handles, labels, loc="outside lower center", ncol=columns, fontsize=9)


def standing_figure(
    rows: Sequence[LeaderboardRow], styles: Sequence[MethodStyle], levels: Sequence[float], label: str, title: str
) -> Figure:
    """Return, per method and level, the compression that is reached, with its interval; arrows where it is a bound."""
    with drawing():
        figure = Figure(figsize=(6.4, 1.5 + 0.5 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        values = [row.compression[level].value for row in rows for level in levels]
        edge = 1.06 * max((value for value in values if np.isfinite(value)), default=2.0)
        offsets = np.linspace(-0.25, 0.25, len(levels)) if len(levels) > 1 else np.zeros(1)
        for place, row in enumerate(rows):
            for level, offset, depth in zip(levels, offsets, np.linspace(0.4, 1.0, len(levels)), strict=True):
                value = row.compression[level]
                if not value.reached or not np.isfinite(value.value):
                    continue
                y, color = place + offset, styles[row.method].color
                if np.isfinite(value.low):
                    axes.plot(
                        [value.low, min(value.high, edge)], [y, y], color=color, alpha=float(depth), linewidth=1.2
                    )
                marker = 9 if value.at_least else 8 if value.at_most else styles[row.method].marker  # 9, 8: carets
                axes.plot([value.value], [y], marker=marker, color=color, alpha=float(depth), linestyle="")
        axes.set_yticks(range(len(rows)), [styles[row.method].label for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(False, axis="y")
        factor_axis(axes, values)
        axes.set_xlabel(f"compression, faint to full: {label}")
        axes.set_title(title, fontsize=10)
    return settle(figure)


def integer_axis(axes: Axes) -> None:
    """Put integer ticks on the x-axis."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def needs_log_axis(values: np.ndarray) -> bool:
    """Return whether positive values span more than a factor of 20, so that a logarithmic axis reads better."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and bool(finite.min() > 0) and bool(finite.max() > 20 * finite.min())
