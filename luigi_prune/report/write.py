"""Writes a report, all or nothing: plots, Markdown, HTML page, tables for other programs, TensorBoard logs."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from luigi_prune.report.contents import Contents, make_contents
from luigi_prune.report.html import to_html
from luigi_prune.report.markdown import settings_text, to_markdown
from luigi_prune.report.result_rows import file_name, write_data
from luigi_prune.report.style import MethodStyle, method_styles, png, save
from luigi_prune.report.table_files import write_tables
from luigi_prune.report.take_home import take_home
from luigi_prune.report.tensorboard import write_tensorboard

Arrays = dict[str, np.ndarray]


def write_report(
    arrays: Arrays,
    meta: dict[str, Any],
    settings: dict[str, Any],
    folder: Path | str,
    *,
    provenance: dict[str, Any],
    plotting: dict[str, float],
    labels: dict[str, str],
    colors: dict[str, str],
    measured: Arrays | None = None,
    key: str = "",
) -> list[Path]:
    """Write the report on the tables of `aggregate_results` into `folder`, replacing an older one; return the files.

    `report.html` (one self-contained page), `report.md`, `plots/` (PDF and SVG), `tables/` (CSV and LaTeX), `data/`
    (`results.csv`, `provenance.json`, and per test set an `.npz` with torchprune's names and `key` as its `time_tag`),
    `tensorboard/`. `plotting` has `min_val` and
    `max_val` of the keep ratio. It is written to a temporary folder beside `folder` and renamed when complete; the
    same input gives the same bytes.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    fresh.mkdir()
    try:
        styles = method_styles(
            [str(name) for name in arrays["axes/method"]], arrays["method/nominal"].tolist(), labels, colors
        )
        # A result file also has the cost of its own task; only arrays over the cells belong to the experiment.
        per_cell = {name: table for name, table in (measured or {}).items() if table.shape == arrays["cost/size"].shape}
        costs = {name: array for name, array in (measured or {}).items() if name.startswith("family/")}
        contents = make_contents(arrays, per_cell, meta, styles, plotting, provenance, costs, settings)
        _write_files(fresh, contents, styles, arrays, per_cell, meta, settings, provenance, labels, key)
        _move_into_place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write_files(
    folder: Path,
    contents: Contents,
    styles: list[MethodStyle],
    arrays: Arrays,
    measured: Arrays,
    meta: dict[str, Any],
    settings: dict[str, Any],
    provenance: dict[str, Any],
    labels: dict[str, str],
    key: str,
) -> None:
    files = {}
    for plot in contents.plots:
        stem = folder / "plots" / Path(*(file_name(part) for part in plot.name.split("/")))
        files[plot.name] = [path.relative_to(folder).as_posix() for path in save(plot.figure, stem)]
    pictures = {name: paths[1] for name, paths in files.items()}
    home = take_home(arrays, contents.verdict, styles, provenance, str(meta["experiment"]))
    markdown = to_markdown(contents, settings, provenance, pictures)
    (folder / "report.md").write_text(markdown, encoding="utf-8")
    page = to_html(contents, styles, settings, provenance, files, home)
    (folder / "report.html").write_text(page, encoding="utf-8")
    write_data(folder / "data", arrays, measured, meta, labels, key)
    whole = json.dumps(provenance, indent=1, default=str, ensure_ascii=False)
    (folder / "data" / "provenance.json").write_text(whole + "\n", encoding="utf-8")
    write_tables(folder / "tables", contents.tables)
    texts = {"report": markdown, "settings": f"```yaml\n{settings_text(settings)}```"}
    images = {plot.title: png(plot.figure) for plot in contents.main}
    write_tensorboard(arrays, meta, images, texts, folder / "tensorboard", styles, contents.standing)


def _move_into_place(fresh: Path, folder: Path) -> None:
    """Replace `folder` by `fresh`: readers see the old or the new, except between the two renames."""
    old = fresh.with_name(fresh.name + ".old")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
