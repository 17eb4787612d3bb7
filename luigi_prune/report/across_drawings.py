"""Drawings of a comparison over experiments, as SVG text: mean ranks with critical difference, and a varied setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from luigi_prune.analysis.across import Across, MemberResult

WIDTH = 720


def rank_drawing(found: Across, labels: Mapping[str, str], colors: Mapping[str, str]) -> str:
    """Return the critical-difference diagram: methods at their mean ranks, bars over those not shown different.

    Empty for fewer than two methods or experiments.
    """
    count = len(found.methods)
    if not found.ranks_experiments:
        return ""
    left, right, top = 150, WIDTH - 150, 40 + 12 * len(found.alike)

    def x(rank: float) -> float:
        return left + (rank - 1) / (count - 1) * (right - left)

    height = top + 30 + 20 * ((count + 1) // 2)
    parts = [_line(left, top, right, top)]
    for rank in range(1, count + 1):
        parts += [_line(x(rank), top - 5, x(rank), top), _text(x(rank), top - 9, str(rank), "middle")]
    if np.isfinite(found.critical_difference):
        width = min(found.critical_difference, count - 1) / (count - 1) * (right - left)
        parts += [_line(left, 12, left + width, 12), _text(left + width + 6, 16, f"CD {found.critical_difference:.2f}")]
    for row, group in enumerate(found.alike):
        ranks = [found.mean_rank[found.methods.index(name)] for name in group]
        y = 26 + 12 * row
        parts.append(_line(x(min(ranks)) - 4, y, x(max(ranks)) + 4, y, 'stroke-width="5" stroke-linecap="round"'))
    for at, name in enumerate(found.methods):
        is_left = at < (count + 1) // 2
        y = top + 24 + 20 * (at if is_left else count - 1 - at)
        place, edge = x(found.mean_rank[at]), left - 8 if is_left else right + 8
        color = f'style="stroke: {escape(colors.get(name, "currentColor"))}" stroke-width="2"'
        parts += [_line(place, top, place, y, color), _line(place, y, edge, y, color)]
        parts.append(_text(edge + (-4 if is_left else 4), y + 4, labels[name], "end" if is_left else "start"))
    return _svg(height, "Mean ranks; bars join methods that are not shown different", parts)


def axis_drawing(members: Sequence[MemberResult], labels: Mapping[str, str], colors: Mapping[str, str]) -> str:
    """Return compression (log axis) against the one numeric setting that varies, empty if there is none."""
    keys = list(dict.fromkeys(key for member in members for key in member.varied))
    judged = [member for member in members if member.verdict] if len(keys) == 1 else []
    if len(judged) < 2 or not all(_is_number(member.varied.get(keys[0])) for member in judged):
        return ""
    points = sorted(((float(member.varied[keys[0]]), member) for member in judged), key=lambda point: point[0])
    values = np.array([value for value, _ in points])
    factors = [value for _, member in points for value in member.compression.values() if np.isfinite(value.value)]
    low, high = 0.0, max(1.0, float(np.ceil(max(np.log2(value.value) for value in factors)))) if factors else 1.0
    left, right, top, bottom = 60, WIDTH - 170, 20, 280

    def place(at: int, factor: float) -> tuple[float, float]:
        across = (values[at] - values[0]) / (np.ptp(values) or 1.0)
        return left + across * (right - left), bottom - (np.log2(factor) - low) / (high - low) * (bottom - top)

    parts = [_line(left, bottom, right, bottom), _line(left, top, left, bottom)]
    for power in range(int(low), int(high) + 1):
        y = place(0, 2.0**power)[1]
        parts += [_line(left - 4, y, left, y), _text(left - 8, y + 4, f"{2**power}×", "end")]
    for at, value in enumerate(values):
        parts.append(_text(place(at, 1.0)[0], bottom + 18, f"{value:g}", "middle"))
    parts.append(_text((left + right) / 2, bottom + 38, keys[0], "middle"))
    names = list(dict.fromkeys(name for _, member in points for name in member.compression))
    ends = []
    for name in names:
        known = [
            (at, member.compression[name].value) for at, (_, member) in enumerate(points) if name in member.compression
        ]
        places = [place(at, factor) for at, factor in known if np.isfinite(factor) and factor > 0]
        color = escape(colors.get(name, "currentColor"))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" style="fill: none; stroke: {color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill: {color}; stroke: none"/>' for x, y in places]
        if places:
            ends.append((places[-1], labels[name], color))
    y_last = float("-inf")
    for (x, y), label, color in sorted(ends, key=lambda end: end[0][1]):
        y_last = max(y, y_last + 14)
        parts.append(f'<circle cx="{x + 10:.1f}" cy="{y_last:.1f}" r="3" style="fill: {color}; stroke: none"/>')
        parts.append(_text(x + 17, y_last + 4, label))
    return _svg(int(max(bottom + 46, y_last + 10)), f"Compression against {keys[0]}", parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _line(x1: float, y1: float, x2: float, y2: float, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {more}/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(title)}</title>{body}</svg>'
