"""Styles of figures (colours, markers, labels) and their output: equal figures give equal bytes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import colors as mcolors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser

from luigi_prune.registry import METHODS
from luigi_prune.registry.rows import MethodRow
from luigi_prune.report.palette import PALETTE, on_light

# Text and lines. In the HTML page it becomes `currentColor`, so that figures follow a dark theme.
INK = "#1d2129"
MARKERS = "os^DvPX*<>phd"
# Lines by what a method prunes. Methods that prune nothing are dotted.
LINES: dict[str, Any] = {"weight": "-", "filter": (0, (6, 2)), "channel": (0, (6, 2)), "rank": (0, (6, 2, 1.5, 2))}
NOMINAL_LINE: Any = (0, (1.5, 2))
_SYMBOLS = {
    "ell": "ℓ",
    "infty": "∞",
    "alpha": "α",
    "beta": "β",
    "delta": "δ",
    "epsilon": "ε",
    "sigma": "σ",
    "times": "×",
    "cdot": "·",
}


@dataclass(frozen=True)
class MethodStyle:
    """Line style and label of one method; `label` may contain mathtext, `plain` is the same as plain text."""

    method: str
    label: str
    plain: str
    color: str
    marker: str
    linestyle: Any
    nominal: bool


def method_styles(
    methods: Sequence[str], nominal: Sequence[bool], labels: dict[str, str], colors: dict[str, str]
) -> list[MethodStyle]:
    """Return one style per method, which does not depend on the others unless neither user nor row choose one.

    The marker is that of the method's row; without row, colour or marker, the first pair that is free. A colour that is
    none, or too faint on a card, and mathtext that cannot be drawn, are replaced instead of failing the report.
    """
    rows = [METHODS.get(method) for method in methods]
    own = [_own_style(colors.get(method, ""), row) for method, row in zip(methods, rows, strict=True)]
    taken = {pair for pair in own if all(pair)}
    free = iter(pair for turn in range(len(MARKERS)) for pair in _pairs_of_turn(turn) if pair not in taken)
    styles = []
    for at, method in enumerate(methods):
        color, marker = own[at]
        if at == 0:
            color, marker = INK, MARKERS[0]
        elif not (color and marker):
            spare_color, spare_marker = next(free, (PALETTE[at % len(PALETTE)], MARKERS[at % len(MARKERS)]))
            color, marker = color or spare_color, marker or spare_marker
        row, label = rows[at], drawable(labels.get(method, method))
        line = NOMINAL_LINE if nominal[at] else LINES.get(row.granularity if row else "", "-")
        styles.append(MethodStyle(method, label, plain_text(label), color, marker, line, bool(nominal[at])))
    return styles


def _own_style(color: str, row: MethodRow | None) -> tuple[str, str]:
    """Return the colour as hexadecimal digits and the marker that user and row choose, empty if they do not."""
    marker = row.marker if row and row.marker in MARKERS else ""
    if not mcolors.is_color_like(color):
        return "", marker
    if sum(mcolors.to_rgb(color)) < 0.25:  # near-black is invisible on a dark page; INK is themed
        return INK, marker
    return on_light(mcolors.to_hex(color)), marker


def _pairs_of_turn(turn: int) -> list[tuple[str, str]]:
    """Return every colour once, with markers that differ from those of the turns before."""
    return [(color, MARKERS[(at + turn) % len(MARKERS)]) for at, color in enumerate(PALETTE)]


def drawable(label: str) -> str:
    """Return `label` if matplotlib can draw it, else the label with its dollar signs escaped."""
    try:
        MathTextParser("path").parse(label)
    except ValueError:
        return label.replace("$", r"\$")
    return label


def plain_text(label: str) -> str:
    r"""Return mathtext as plain text: `$\frac{\ell_1+\ell_2}{2}$` becomes `(ℓ1+ℓ2)/2`."""

    def math(match: re.Match[str]) -> str:
        text = match.group(1)
        for name, symbol in _SYMBOLS.items():
            text = re.sub(rf"\\{name}(?![A-Za-z])", symbol, text)
        text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", lambda m: f"({m[1]})/{m[2]}", text)
        return re.sub(r"\\[A-Za-z]+|[{}_^\\]", "", text)

    return re.sub(r"(?<!\\)\$([^$]*)\$", math, label).replace(r"\$", "$")


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Use matplotlib's defaults and our settings, regardless of the user's matplotlibrc."""
    defaults = {
        name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith(("backend", "toolbar"))
    }
    settings = {
        "font.size": 10.0,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#8a919e",
        "grid.alpha": 0.3,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.0,
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
    }
    with matplotlib.rc_context({**defaults, **settings}):
        yield


def settle(figure: Figure) -> Figure:
    """Return the figure with its layout computed and frozen, so that it is not recomputed for every file format."""
    with drawing():
        FigureCanvasAgg(figure)
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
    figure.set_layout_engine("none")
    return figure


@contextlib.contextmanager
def _background(figure: Figure, color: str) -> Iterator[None]:
    """Give the figure a background and keep its resolution, for the writers of single formats.

    `print_figure` would do both, but it draws everything a second time, for a layout that is settled here.
    """
    face, edge, dpi = figure.get_facecolor(), figure.get_edgecolor(), figure.get_dpi()
    figure.set(facecolor=color, edgecolor=color)
    try:
        yield
    finally:
        figure.set(facecolor=face, edgecolor=edge, dpi=dpi)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.pdf and `stem`.svg, on white, without timestamps; return their paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    pdf, svg = stem.with_name(stem.name + ".pdf"), stem.with_name(stem.name + ".svg")
    with drawing(), matplotlib.rc_context({"svg.hashsalt": stem.name}), _background(figure, "white"):
        FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None, "Creator": None})
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return [pdf, svg]


def png(figure: Figure, resolution: float = 110.0) -> bytes:
    """Return the figure as a PNG on white, without timestamps."""
    buffer = io.BytesIO()
    with drawing(), _background(figure, "white"):
        figure.set_dpi(resolution)
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Return the figure as SVG to embed in a page: transparent, in the page's text colour, with unique ids."""
    buffer = io.BytesIO()
    with drawing(), matplotlib.rc_context({"svg.hashsalt": name}):
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        with _background(figure, "none"):
            FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)
    svg = buffer.getvalue().decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    prefix = "f" + hashlib.sha256(name.encode()).hexdigest()[:8] + "-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}", svg)
    svg = re.sub(
        r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), svg
    )  # hundredths of a point suffice
    svg = svg.replace(INK, "currentColor")
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    width = figure.get_size_inches()[0] * 72 * 1.5  # pixels: 10-point text then matches the page's
    style = f"--natural:{width:.0f}px;max-width:{width:.0f}px"
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" style="{style}" ', 1)
