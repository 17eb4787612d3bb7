"""Figures with one panel per method: weights kept per layer, and training curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import colors as mcolors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from luigi_prune.analysis.statistics import spread
from luigi_prune.report.curves import in_percent
from luigi_prune.report.figures import integer_axis, needs_log_axis
from luigi_prune.report.style import INK, MethodStyle, drawing, settle

Arrays = dict[str, np.ndarray]
MAX_NAMED_LAYERS = 12


def chosen_ratios(keep_ratios: np.ndarray, shown: np.ndarray, number: int = 3) -> list[int]:
    """Return the indices of up to `number` ratios that span the plotted range, largest ratio first."""
    places = np.flatnonzero(shown)
    ordered = places[np.argsort(-keep_ratios[places], kind="stable")]
    picks = np.unique(np.round(np.linspace(0, len(ordered) - 1, min(number, len(ordered)))).astype(int))
    return [int(ordered[pick]) for pick in picks]


def shades(color: str, number: int) -> list[str]:
    """Return `number` shades of a colour, from the lightest to the colour itself."""
    rgb = np.asarray(mcolors.to_rgb(color))
    mixes = 0.85 * (1 - (np.arange(number) + 1) / number)
    return [mcolors.to_hex(rgb + (np.full(3, 0.75) - rgb) * mix) for mix in mixes]


def _panels(
    styles: Sequence[MethodStyle], draw: Callable[[Axes, MethodStyle], None], width: float, height: float
) -> Figure:
    """Return a figure with one panel per method, two or, if they are many, three per row, on shared axes."""
    columns = min(2 if len(styles) <= 4 else 3, max(1, len(styles)))
    rows = max(1, math.ceil(len(styles) / columns))
    figure = Figure(figsize=(width * columns, height * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, style in zip(grid.flat, styles, strict=False):
        draw(axes, style)
        axes.set_title(style.label, fontsize=10, fontweight="bold", loc="left", pad=18)
        axes.tick_params(labelbottom=True)
    for axes in list(grid.flat)[len(styles) :]:
        axes.set_visible(False)
    return figure


def legend_above(axes: Axes) -> None:
    """Put the legend in a row between title and axes, where it hides no line."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.985),
        ncol=4,
        fontsize=8,
        handlelength=1.4,
        columnspacing=1.1,
        handletextpad=0.4,
        borderaxespad=0.0,
    )


def layer_figure(arrays: Arrays, styles: Sequence[MethodStyle], ratios: Sequence[int], what: str, title: str) -> Figure:
    """Return a panel per method over the layers, mean over nets and repetitions; band: sample standard deviation.

    `what` is "budget" (share of all kept weights that a layer holds) or "pruned" (pruned share of a layer's weights).
    """
    kept, totals = arrays["layers/kept"], arrays["layers/total"]
    values = kept / kept.sum(axis=-1, keepdims=True) if what == "budget" else 1.0 - kept / totals
    places = {style.method: at for at, style in enumerate(styles)}
    drawn = [
        style
        for style in styles
        if not style.nominal and np.isfinite(values[..., places[style.method], :][:, list(ratios)]).any()
    ]
    x = np.arange(1, len(totals) + 1)

    def draw(axes: Axes, style: MethodStyle) -> None:
        if what == "budget":
            dense = totals / totals.sum()
            axes.bar(x, dense, width=0.9, color="#8a919e", alpha=0.25, label="unpruned")
        for ratio, color in zip(ratios, shades(style.color, len(ratios)), strict=True):
            table = spread(values[:, ratio, :, places[style.method]])
            axes.plot(
                x,
                table.mean,
                color=color,
                marker="o",
                markersize=3,
                label=f"keep {arrays['axes/keep_ratio'][ratio]:.3g}",
            )
            axes.fill_between(x, table.mean - table.std, table.mean + table.std, color=color, alpha=0.15, linewidth=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        legend_above(axes)
        if what == "pruned":
            axes.set_ylim(-0.03, 1.03)

    with drawing():
        figure = _panels(drawn, draw, 4.6 if len(totals) <= 30 else 5.6, 2.9)
        for axes in figure.axes:
            _name_layers(axes, [str(name) for name in arrays["axes/layer"]])
        if len(totals) > MAX_NAMED_LAYERS:
            figure.supxlabel("compressible layer, 1 is next to the input", fontsize=10)
        figure.supylabel("share of all kept weights" if what == "budget" else "share of the layer pruned", fontsize=10)
        figure.suptitle(title, fontsize=10)
    return settle(figure)


def _name_layers(axes: Axes, names: list[str]) -> None:
    """Name the layers on the x-axis, or number them if there are many."""
    if len(names) <= MAX_NAMED_LAYERS:
        steep = max((len(name) for name in names), default=0) * len(names) > 36
        axes.set_xticks(
            range(1, len(names) + 1), names, rotation=45 if steep else 0, ha="right" if steep else "center", fontsize=8
        )
    else:
        integer_axis(axes)


def curve_figure(
    arrays: Arrays, styles: Sequence[MethodStyle], ratios: Sequence[int], label: str, title: str
) -> Figure | None:
    """Return training curves of a metric or `loss`, or None if there are none.

    A panel for the unpruned networks and one per method. Solid: validation split; dotted: training data. Mean over nets
    and repetitions; band: sample standard deviation.
    """
    names = (
        ("curves/train_loss", "curves/validation_loss")
        if label == "loss"
        else (f"curves/train/{label}", f"curves/validation/{label}")
    )
    train, validation = (arrays[name] for name in names)
    places = {style.method: at for at, style in enumerate(styles)}
    known = np.isfinite(validation) | np.isfinite(train)
    drawn = [style for style in styles if known[..., places[style.method], :].any()]
    if not drawn:
        return None
    epochs = arrays["axes/epoch"] + 1

    def draw(axes: Axes, style: MethodStyle) -> None:
        at = places[style.method]
        chosen = list(ratios) if at else [0]
        for ratio, color in zip(chosen, shades(style.color, len(chosen)), strict=True):
            table = spread(validation[:, ratio, :, at])
            name = f"keep {arrays['axes/keep_ratio'][ratio]:.3g}" if at else "unpruned"
            axes.plot(
                epochs,
                table.mean,
                color=color,
                label=name,
                linewidth=1.5,
                marker="." if np.isfinite(table.mean).sum() < 4 else None,
            )
            axes.fill_between(
                epochs, table.mean - table.std, table.mean + table.std, color=color, alpha=0.13, linewidth=0
            )
            axes.plot(epochs, spread(train[:, ratio, :, at]).mean, color=color, linestyle=":", linewidth=1.1)
        if in_percent(arrays, label, validation):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        integer_axis(axes)
        legend_above(axes)

    with drawing():
        figure = _panels(drawn, draw, 4.6, 2.7)
        if label == "loss" and needs_log_axis(validation):
            figure.axes[0].set_yscale("log")
        figure.supxlabel("epoch", fontsize=10, color=INK)
        figure.supylabel(label, fontsize=10)
        figure.suptitle(title, fontsize=10)
    return settle(figure)
