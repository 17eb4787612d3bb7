"""The report as one self-contained HTML page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from luigi_prune.report.chart_data import as_json, color_of, dash_of
from luigi_prune.report.contents import Contents
from luigi_prune.report.markdown import settings_text
from luigi_prune.report.markers import MARKER_PATHS
from luigi_prune.report.palette import on_dark
from luigi_prune.report.provenance_lines import provenance_lines
from luigi_prune.report.style import MethodStyle, inline_svg
from luigi_prune.report.table_files import LATEX_SIGNS
from luigi_prune.report.take_home import TakeHome

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("page.js", "chart.js", "tables.js")


def to_html(
    contents: Contents,
    styles: list[MethodStyle],
    settings: dict[str, Any],
    provenance: dict[str, Any],
    files: dict[str, list[str]],
    home: TakeHome | None,
) -> str:
    """Return the page; `files` maps plot names to the relative paths of their files.

    Its script draws the plot, sorts, filters and copies tables; without it, the first plot is a picture and all tables
    are there.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = [*contents.main[:1], *([contents.excess_lines] if contents.excess_lines else []), *contents.curves]
    pictures = {
        plot.name: Markup(themed(inline_svg(plot.figure, plot.name, f"{plot.title}. {plot.caption}"))) for plot in drawn
    }
    return environment.get_template("report.html").render(
        contents=contents,
        style=Markup((TEMPLATES / "style.css").read_text()),
        script=Markup(page_script()),
        data=Markup(as_json({**contents.chart, "paths": MARKER_PATHS, "latex": LATEX_SIGNS})),
        glyphs=Markup(glyphs(styles)),
        pictures=pictures,
        files=files,
        settings=settings_text(settings),
        provenance=provenance_lines(provenance),
        home=home,
    )


def page_script() -> str:
    """Return the page's script: one function, so that its names are its own."""
    parts = "\n".join((TEMPLATES / name).read_text() for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();'


def themed(svg: str) -> str:
    """Return a picture whose colours have partners in the dark theme; browsers without `light-dark` keep the light."""

    def both(match: re.Match[str]) -> str:
        name, color = match.groups()
        return f"{name}: {color}; {name}: light-dark({color}, {on_dark(color)})"

    return re.sub(r"\b(stroke|fill): (#[0-9a-f]{6})\b", both, svg)


def glyphs(styles: list[MethodStyle]) -> str:
    """Return the definitions of one symbol per method: its line and its marker, as in the plot."""
    symbols = []
    for at, style in enumerate(styles):
        dash = dash_of(style)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        symbols.append(
            f'<symbol id="g{at}" viewBox="-14 -7 28 14"><g style="color:{color_of(style)}">'
            f'<path d="M-14 0H14" stroke="currentColor" stroke-width="1.8"{dashes}/>'
            f'<path d="{MARKER_PATHS[style.marker]}" fill="currentColor"/></g></symbol>'
        )
    return "".join(symbols)
