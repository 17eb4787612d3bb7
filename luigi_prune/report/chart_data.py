"""The numbers that the page's script draws and fills tables with, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from luigi_prune.report.chart_axes import ChartAxis
from luigi_prune.report.curves import DEPTHS, Quality, curves, depth_shown, with_bands
from luigi_prune.report.palette import on_dark
from luigi_prune.report.style import INK, MethodStyle

Arrays = dict[str, np.ndarray]

# More bands hide each other.
MOST_BANDS = 3


def chart_data(
    arrays: Arrays,
    styles: Sequence[MethodStyle],
    qualities: dict[str, list[Quality]],
    shown: np.ndarray,
    orders: Sequence[int],
    best: Sequence[int],
    axes: Sequence[ChartAxis],
) -> dict[str, Any]:
    """Return methods, ratios, the horizontal axes, and per test set the values of every metric.

    Lists over (ratio, method) have null for missing numbers. `orders` are the methods, the best first; `best` those
    not shown worse than the first, of which the page shows the bands unasked.
    """
    return {
        "methods": [
            {"name": style.plain, "dash": dash_of(style), "marker": style.marker, "nominal": style.nominal}
            for style in styles
        ],
        "order": [*orders, *(at for at in range(1, len(styles)) if at not in orders)],
        "ratios": [f"{ratio:.4g}" for ratio in arrays["axes/keep_ratio"]],
        "shown": np.flatnonzero(shown).tolist(),
        "depths": list(DEPTHS),
        "banded": [*best[:MOST_BANDS]] if with_bands(arrays) else [],
        "axes": {axis.name: {"label": axis.label, "unit": axis.unit, "values": plain(axis.values)} for axis in axes},
        "sets": {
            test_set: {quality.label: _of_quality(arrays, quality, shown) for quality in found}
            for test_set, found in qualities.items()
        },
    }


def _of_quality(arrays: Arrays, quality: Quality, shown: np.ndarray) -> dict[str, Any]:
    depth = depth_shown(curves(arrays, quality, "cost/size", shown), quality.lower, quality.zone)
    scale = quality.scale
    return {
        "unit": quality.unit,
        "percent": scale == 100.0,
        "lower": quality.lower,
        "zone": None if quality.zone is None else float(f"{quality.zone:.4g}"),
        "depth": depth,
        "mean": plain(scale * quality.value.mean),
        "std": plain(scale * quality.value.std),
        "change": plain(scale * quality.change.mean),
        "low": plain(scale * quality.change.low),
        "high": plain(scale * quality.change.high),
        "n": quality.value.n.tolist(),
    }


def plain(values: np.ndarray) -> list[list[float | None]]:
    """Return a matrix as lists of numbers of five digits, None for those that are not finite."""
    return [[float(f"{value:.5g}") if np.isfinite(value) else None for value in row] for row in values]


def dash_of(style: MethodStyle) -> str:
    """Return the line of a method as SVG writes it; matplotlib's lengths are in line widths."""
    line = style.linestyle
    return "" if isinstance(line, str) else " ".join(f"{2 * length:g}" for length in line[1])


def color_of(style: MethodStyle) -> str:
    """Return the colour of a method in both themes, for CSS."""
    return "currentColor" if style.color == INK else f"light-dark({style.color}, {on_dark(style.color)})"


def as_json(data: dict[str, Any]) -> str:
    """Return JSON that can stand inside a script element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
