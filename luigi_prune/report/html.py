"""The report as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from luigi_prune.report.contents import Contents
from luigi_prune.report.markdown import provenance_rows, settings_text
from luigi_prune.report.style import inline_svg

TEMPLATES = Path(__file__).parent / "templates"


def to_html(
    contents: Contents, settings: dict[str, Any], provenance: dict[str, Any], files: dict[str, list[str]]
) -> str:
    """Return the page with inline SVG figures; `files` maps plot names to the relative paths of their PDF and PNG."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = {
        plot.name: Markup(inline_svg(plot.figure, plot.name, f"{plot.title}. {plot.caption}"))
        for plot in contents.plots
    }
    return environment.get_template("report.html").render(
        contents=contents,
        style=Markup((TEMPLATES / "style.css").read_text()),
        pictures=pictures,
        files=files,
        settings=settings_text(settings),
        provenance=provenance_rows(provenance),
    )
