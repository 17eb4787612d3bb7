"""Figures of quality against the pruned share, and of the prunability at commensurate quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from luigi_prune.analysis.commensurate import Commensurate, lower_is_better
from luigi_prune.analysis.statistics import by_run, first_known, spread
from luigi_prune.report.style import INK, MethodStyle, drawing, plain_text, settle

Arrays = dict[str, np.ndarray]

COSTS = {"parameters": ("cost/size", "pruned parameters"), "flops": ("cost/flops", "pruned FLOPs (multiply-adds)")}
# Networks further below the unpruned one are marked at the axis instead of drawn: they would flatten all other lines.
DEEPEST_DROP = 0.30
MAX_SINGLE_RUNS = 6


@dataclass(frozen=True)
class Plot:
    """A figure with the name of its files, a title and a self-contained caption."""

    name: str
    title: str
    caption: str
    figure: Figure


def is_share(values: np.ndarray) -> bool:
    """Return whether a metric can be shown in percent: all its values lie in [-1, 1]."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and bool(np.all(np.abs(finite) <= 1.0))


def in_percent(arrays: Arrays, label: str, values: np.ndarray) -> bool:
    """Return whether values of a metric are shown in percent; never those of the loss, or of which less is better."""
    return not lower_is_better(arrays, label) and is_share(values)


def within(keep_ratios: np.ndarray, plotting: dict[str, float]) -> np.ndarray:
    """Return which ratios lie in the plotted range [min_val, max_val]; all of them if none does."""
    inside = (keep_ratios >= plotting["min_val"] - 1e-9) & (keep_ratios <= plotting["max_val"] + 1e-9)
    return inside if inside.any() else np.ones_like(inside)


def quality_figure(
    arrays: Arrays,
    styles: Sequence[MethodStyle],
    test_set: str,
    label: str,
    cost: str,
    plotting: dict[str, float],
    title: str,
) -> Figure:
    """Return a metric or `loss` against the share of parameters or FLOPs pruned, one line per method.

    Line and marker: mean over nets and repetitions; band: one sample standard deviation; thin lines: single runs, or
    their range if there are more than a few. The unpruned network is a horizontal line with its own band.
    """
    name, cost_label = COSTS[cost]
    values = arrays[f"test/{test_set}/{label}"]
    percent = in_percent(arrays, label, values)
    shown = within(arrays["axes/keep_ratio"], plotting)
    with drawing():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        bottom = None if lower_is_better(arrays, label) else _bottom(values[:, shown], percent)
        for at, style in enumerate(styles[1:], start=1):
            x, y = 1.0 - arrays[name][..., at][:, shown], values[..., at][:, shown]
            _draw_method(axes, style, x, y, bottom)
        _draw_reference(axes, styles[0], values[..., 0])
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        elif needs_log_axis(values[:, shown]):
            axes.set_yscale("log")
        if bottom is not None:
            axes.set_ylim(bottom=bottom)
        axes.margins(x=0.03)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(cost_label)
        lower = label != "loss" and lower_is_better(arrays, label)
        axes.set_ylabel(f"test {label}" + " (lower is better)" * lower)
        axes.set_title(title, fontsize=10)
        add_legend(figure, axes)
    return settle(figure)


def _draw_method(axes: Axes, style: MethodStyle, x: np.ndarray, y: np.ndarray, bottom: float | None) -> None:
    """Draw one method; `x` and `y` are (net, ratio, repetition)."""
    mean_x, table = spread(by_run(x)).mean, spread(by_run(y))
    known = np.isfinite(mean_x) & np.isfinite(table.mean)
    if not known.any():
        return
    order = np.argsort(mean_x[known], kind="stable")

    def line(row: np.ndarray) -> np.ndarray:
        return row[known][order]

    runs = x.shape[0] * x.shape[2]
    if 1 < runs <= MAX_SINGLE_RUNS:
        for net, repetition in np.ndindex(x.shape[0], x.shape[2]):
            single_x, single_y = x[net, :, repetition], y[net, :, repetition]
            by_x = np.argsort(single_x, kind="stable")
            axes.plot(single_x[by_x], single_y[by_x], color=style.color, alpha=0.3, linewidth=0.7)
    elif runs > 1:
        for row in (table.minimum, table.maximum):
            axes.plot(line(mean_x), line(row), color=style.color, alpha=0.45, linewidth=0.7, linestyle=":")
    if runs > 1:
        low, high = line(table.mean - table.std), line(table.mean + table.std)
        axes.fill_between(line(mean_x), low, high, color=style.color, alpha=0.13, linewidth=0)
    axes.plot(
        line(mean_x),
        line(table.mean),
        color=style.color,
        marker=style.marker,
        linestyle=style.linestyle,
        label=style.label,
    )
    if bottom is not None:
        below = line(mean_x)[line(table.mean) < bottom][:1]
        (hint,) = axes.plot(below, np.full(len(below), bottom), "v", color=style.color, markersize=8, clip_on=False)
        hint.set_in_layout(False)


def _draw_reference(axes: Axes, style: MethodStyle, values: np.ndarray) -> None:
    """Draw the unpruned network as a horizontal line; `values` are (net, ratio, repetition), equal within a net."""
    table = spread(first_known(values)[:, None])
    if np.isfinite(table.mean):
        axes.axhline(
            float(table.mean),
            color=style.color,
            linestyle=(0, (5, 3)),
            linewidth=1.3,
            label=f"{style.label} (unpruned)",
        )
        if np.isfinite(table.std):
            axes.axhspan(
                float(table.mean - table.std), float(table.mean + table.std), color=style.color, alpha=0.07, linewidth=0
            )


def _bottom(values: np.ndarray, percent: bool) -> float | None:
    """Return the lower limit of the y-axis, or None if nothing falls far below the unpruned network."""
    if not percent or not np.isfinite(values[..., 0]).any():
        return None
    reference, lowest = float(np.nanmean(values[..., 0])), float(np.nanmin(values))
    return reference - DEEPEST_DROP if lowest < reference - DEEPEST_DROP - 0.05 else None


def needs_log_axis(values: np.ndarray) -> bool:
    """Return whether positive values span more than a factor of 20, so that a logarithmic axis reads better."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and bool(finite.min() > 0) and bool(finite.max() > 20 * finite.min())


def add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend below the axes, where it hides nothing, in as many columns as fit."""
    handles, texts = axes.get_legend_handles_labels()
    if handles:
        longest = max(len(plain_text(text)) for text in texts)
        width, height = figure.get_size_inches()
        columns = max(1, min(len(handles), int(width * 13 / (longest + 7)), 5))
        rows = -(-len(handles) // columns)
        figure.set_size_inches(width, height + 0.22 * rows)
        figure.legend(handles, texts, loc="outside lower center", ncol=columns, fontsize=9)


def prunability_figure(
    table: Commensurate, styles: Sequence[MethodStyle], order: Sequence[int], levels: Sequence[float], title: str
) -> Figure:
    """Return, per method and level, the largest share of parameters pruned: mean, sample deviation and runs."""
    pruned = table.pruned
    with drawing():
        figure = Figure(figsize=(6.4, 1.5 + 0.5 * len(order)), layout="constrained")
        axes = figure.add_subplot()
        offsets = np.linspace(-0.27, 0.27, len(levels)) if len(levels) > 1 else np.zeros(1)
        for place, at in enumerate(order):
            for level, offset, depth in zip(levels, offsets, np.linspace(0.35, 1.0, len(levels)), strict=True):
                runs = pruned[table.at(level), :, :, at]
                summary = spread(runs)
                y = place + offset
                axes.barh(y, float(summary.mean), height=0.54 / len(levels), color=styles[at].color, alpha=float(depth))
                axes.plot(runs.ravel(), np.full(runs.size, y), ".", color=INK, markersize=3, alpha=0.6)
                if np.isfinite(summary.std):
                    axes.errorbar(float(summary.mean), y, xerr=float(summary.std), color=INK, linewidth=0.9, capsize=2)
        axes.set_yticks(range(len(order)), [styles[at].label for at in order])
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_xlim(0.0, 1.0)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        drops = ", ".join(f"{100 * level:g}" for level in levels)
        by = (
            f"a rise of {drops} %"
            if table.lower
            else f"a drop of {drops} {'points' if table.is_share else 'hundredths'}"
        )
        axes.set_xlabel(f"pruned parameters, faint to full: at {by}")
        axes.set_title(title, fontsize=10)
    return settle(figure)


def integer_axis(axes: Axes) -> None:
    """Put integer ticks on the x-axis."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
