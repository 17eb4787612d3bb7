"""Colours that stay apart for colour-blind readers, and their contrast on the page's cards.

Eight hues whose pairs differ by at least 16 (CIEDE2000) in normal vision, protanopia, deuteranopia and tritanopia, in
the light and in the dark theme; `tests/report/test_palette.py` computes that. More colours would be closer, so a method
is told by its colour, its marker and its line together.
"""

from __future__ import annotations

from matplotlib import colors as mcolors

# Cards of the page, in the light and the dark theme (templates/style.css).
LIGHT_CARD, DARK_CARD = "#f6f7f9", "#1c2027"
# Of graphics against their background (WCAG 2.2, 1.4.11).
LEAST_CONTRAST = 3.0

# Colour on light cards and on paper -> colour on dark cards.
THEMES = {
    "#7711dd": "#aa88aa",
    "#998833": "#ffff00",
    "#662233": "#ff9999",
    "#009999": "#88ffee",
    "#aa0000": "#ee0000",
    "#aa66ff": "#7755dd",
    "#223366": "#bbbbff",
    "#cc4477": "#aa5566",
    "#6b7280": "#9aa3b2",  # controls
}
PALETTE = tuple(color for color in THEMES if color != "#6b7280")


def contrast(color: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21 (WCAG 2.2)."""
    darker, lighter = sorted((_luminance(color), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def on_light(color: str) -> str:
    """Return the colour, darkened if it is too faint on a light card."""
    return _visible(color, LIGHT_CARD, (0.0, 0.0, 0.0))


def on_dark(color: str) -> str:
    """Return the colour of the dark theme: its partner in the palette, else the colour lightened if need be."""
    return THEMES.get(color) or _visible(color, DARK_CARD, (1.0, 1.0, 1.0))


def _visible(color: str, card: str, towards: tuple[float, float, float]) -> str:
    start = mcolors.to_rgb(color)
    for step in range(21):
        mixed = mcolors.to_hex([a + (b - a) * step / 20 for a, b in zip(start, towards, strict=True)])
        if contrast(mixed, card) >= LEAST_CONTRAST:
            break
    return mixed


def _luminance(color: str) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in mcolors.to_rgb(color)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
