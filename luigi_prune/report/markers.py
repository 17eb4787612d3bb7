"""Outlines of markers, as SVG paths around 0 with a radius of about 5; they have the letters of matplotlib's."""

from __future__ import annotations

import math


def _polygon(corners: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in corners) + "Z"


def _regular(corners: int, radius: float, turn: float = 0.0) -> str:
    angles = [math.radians(turn - 90 + 360 * at / corners) for at in range(corners)]
    return _polygon([(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles])


def _star() -> str:
    radii = [5.6 if at % 2 == 0 else 2.3 for at in range(10)]
    angles = [math.radians(-90 + 36 * at) for at in range(10)]
    return _polygon([(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)])


def _cross(turn: float) -> str:
    outline = [(-1.6, -4.8), (1.6, -4.8), (1.6, -1.6), (4.8, -1.6), (4.8, 1.6), (1.6, 1.6)]
    outline += [(1.6, 4.8), (-1.6, 4.8), (-1.6, 1.6), (-4.8, 1.6), (-4.8, -1.6), (-1.6, -1.6)]
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return _polygon([(x * cos - y * sin, x * sin + y * cos) for x, y in outline])


MARKER_PATHS = {
    "o": "M-4.2 0A4.2 4.2 0 1 1 4.2 0A4.2 4.2 0 1 1 -4.2 0Z",
    "s": _polygon([(-3.9, -3.9), (3.9, -3.9), (3.9, 3.9), (-3.9, 3.9)]),
    "^": _regular(3, 5.2),
    "v": _regular(3, 5.2, 180),
    "<": _regular(3, 5.2, -90),
    ">": _regular(3, 5.2, 90),
    "D": _regular(4, 5.2),
    "d": _polygon([(0, -5.4), (3, 0), (0, 5.4), (-3, 0)]),
    "P": _cross(0),
    "X": _cross(45),
    "*": _star(),
    "p": _regular(5, 5.0),
    "h": _regular(6, 4.9),
}
