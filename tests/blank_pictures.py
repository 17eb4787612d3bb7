"""The job of a report that draws nothing: drawing is nine tenths of a small run, and few tests look at the pictures.

All else is done as ever: figures are made, and text, page, tables and logs are written.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure

from luigi_prune.execution.job import Context
from luigi_prune.jobs import report_job
from luigi_prune.report import figures, html, panels, write

DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


@contextlib.contextmanager
def dots() -> Iterator[None]:
    """Have a dot for every picture of the reports that are written inside the block."""
    with contextlib.ExitStack() as patches:
        for module in (figures, panels):
            patches.enter_context(patch.object(module, "settle", lambda figure: figure))
        patches.enter_context(patch.object(write, "save", _dots))
        patches.enter_context(patch.object(write, "png", lambda figure: DOT))
        patches.enter_context(patch.object(html, "inline_svg", lambda *about: "<svg></svg>"))
        yield


def report(request: dict[str, Any], context: Context) -> None:
    """Do as `luigi_prune.jobs.report_job.report`, with dots for pictures."""
    with dots():
        report_job.report(request, context)


def _dots(figure: Figure, stem: Path) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_name(stem.name + suffix) for suffix in (".pdf", ".svg")]
    for file in files:
        file.write_bytes(DOT)
    return files
