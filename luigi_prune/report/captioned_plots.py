"""The figures of a report with their captions, which mention only what a figure shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from luigi_prune.analysis.leaderboard import LeaderboardRow
from luigi_prune.analysis.verdict import Verdict
from luigi_prune.report import wording
from luigi_prune.report.cells import points
from luigi_prune.report.curves import Curve, Quality, curves, with_bands
from luigi_prune.report.figures import COSTS, Plot, standing_figure, tradeoff_figure
from luigi_prune.report.panels import curve_figure, layer_figure
from luigi_prune.report.style import MethodStyle

Arrays = dict[str, np.ndarray]


def sentence(text: str) -> str:
    """Return `text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def main_plots(
    arrays: Arrays,
    meta: dict[str, Any],
    styles: Sequence[MethodStyle],
    qualities: dict[str, list[Quality]],
    shown: np.ndarray,
    standing: Sequence[LeaderboardRow],
    found: Verdict | None,
) -> list[Plot]:
    """Return the figures of the first test set and metric: change against compression, compression at levels."""
    first = next(iter(qualities))
    plots = [
        plot
        for cost in COSTS
        if (plot := _tradeoff(arrays, meta, styles, first, qualities[first][0], shown, cost)) is not None
    ]
    if found and any(row.compression[found.level].reached for row in standing):
        levels = list(standing[0].compression)[:3]
        label = (
            f"at a {'rise' if found.lower else 'drop'} of {', '.join(points(level) for level in levels)} {found.unit}"
        )
        caption = (
            f"Compression of parameters within each level of {found.chosen_on} {found.metric}; geometric mean and 95 % "
            "interval over nets. A caret to the right: at least so much; to the left: less than that."
        )
        figure = standing_figure(standing, styles, levels, label, f"{meta['network']}, tested on {first}")
        plots.append(Plot(f"{first}/compression_at_levels", f"Compression at levels on {first}", caption, figure))
    return plots


def other_plots(
    arrays: Arrays,
    meta: dict[str, Any],
    styles: Sequence[MethodStyle],
    qualities: dict[str, list[Quality]],
    shown: np.ndarray,
) -> list[Plot]:
    """Return change against compression for the other metrics of the first test set, and the first of the others."""
    first, *others = qualities
    wanted = [(first, quality) for quality in qualities[first][1:]] + [(name, qualities[name][0]) for name in others]
    plots = [_tradeoff(arrays, meta, styles, name, quality, shown, "parameters") for name, quality in wanted]
    return [plot for plot in plots if plot is not None]


def _tradeoff(
    arrays: Arrays,
    meta: dict[str, Any],
    styles: Sequence[MethodStyle],
    test_set: str,
    quality: Quality,
    shown: np.ndarray,
    cost: str,
) -> Plot | None:
    source, cost_label = COSTS[cost]
    made = curves(arrays, quality, source, shown)
    if not made:
        return None
    bands, place = with_bands(arrays), f"{meta['network']}, tested on {test_set}"
    figure = tradeoff_figure(made, styles, quality, cost, place, bands)
    title = f"{sentence(quality.label)} on {test_set} against compression of {cost_label}"
    return Plot(f"{test_set}/{quality.label}_{cost}", title, _caption(arrays, meta, made, quality, cost), figure)


def _caption(arrays: Arrays, meta: dict[str, Any], made: Sequence[Curve], quality: Quality, cost: str) -> str:
    """Return what the figure shows, and only that: bands, the zone and controls are mentioned if they are there."""
    meaning = "mean loss" if quality.label == "loss" else wording.metric_meaning(quality.label)
    share = (
        "all parameters (biases and BatchNorm included) over those that are kept"
        if cost == "parameters"
        else "multiply-adds over those that remain, in theory, over every convolution and linear layer"
    )
    runs = f"{wording.counted(len(arrays['axes/net']), 'net')} × " + wording.counted(
        len(arrays["axes/repetition"]), "repetition"
    )
    parts = [
        f"Vertical: change of test {quality.label} ({meaning}) against the unpruned network of the same run"
        + (f", in {quality.unit}" if quality.unit else "")
        + (". Lower is better; the axis is turned." if quality.lower else "."),
        f"Horizontal: {share}; logarithmic. Mean over {runs}.",
        "Bands: 95 % confidence intervals over nets."
        * (with_bands(arrays) and any(np.isfinite(curve.low).any() for curve in made)),
        "Grey zone: one test sample more or less." * (quality.zone is not None),
        "Dotted: a control, which prunes nothing and is drawn at its keep ratio."
        * bool(arrays["method/nominal"][[curve.method for curve in made]].any()),
        f"Mode {meta['mode']}.",
    ]
    return " ".join(part for part in parts if part)


def layer_plots(
    arrays: Arrays, meta: dict[str, Any], styles: Sequence[MethodStyle], ratios: Sequence[int]
) -> list[Plot]:
    pruned = ~arrays["method/nominal"]
    if not len(arrays["axes/layer"]) or not np.isfinite(arrays["layers/kept"][..., pruned, :]).any():
        return []
    title = f"{meta['network']} trained on {meta['dataset_train']}"
    budget = "The share of all kept weights that each compressible layer holds. Grey: the unpruned network."
    share = "The pruned share of each compressible layer. A method that prunes all layers equally is a horizontal line."
    tail = f" Mean over nets and repetitions{_band(arrays)}; shades: target keep ratio."
    return [
        Plot(
            "budget_per_layer", "Budget per layer", budget + tail, layer_figure(arrays, styles, ratios, "budget", title)
        ),
        Plot(
            "prune_ratio_per_layer",
            "Prune ratio per layer",
            share + tail,
            layer_figure(arrays, styles, ratios, "pruned", title),
        ),
    ]


def curve_plots(
    arrays: Arrays, meta: dict[str, Any], styles: Sequence[MethodStyle], ratios: Sequence[int]
) -> list[Plot]:
    plots = []
    for label in ["loss", *(str(metric) for metric in arrays["axes/metric"])]:
        figure = curve_figure(arrays, styles, ratios, label, f"{meta['network']} trained on {meta['dataset_train']}")
        if figure is not None:
            caption = (
                f"{sentence(label)} per epoch while training and retraining. {_lines(arrays, label)} Mean over nets "
                f"and repetitions{_band(arrays)}."
            )
            plots.append(Plot(f"training_curves_{label}", f"Training curves: {label}", caption, figure))
    return plots


def _band(arrays: Arrays) -> str:
    runs = len(arrays["axes/net"]) * len(arrays["axes/repetition"])
    return "; band: sample standard deviation" if runs > 1 else ""


def _lines(arrays: Arrays, label: str) -> str:
    """Return what the lines of the training curves are, as far as there are such curves."""
    suffix = {"train": "train_loss", "validation": "validation_loss"}
    names = suffix if label == "loss" else {split: f"{split}/{label}" for split in suffix}
    has = {split: np.isfinite(arrays[f"curves/{name}"]).any() for split, name in names.items()}
    return " ".join(
        ["Solid: validation split."] * bool(has["validation"]) + ["Dotted: training data."] * bool(has["train"])
    )
