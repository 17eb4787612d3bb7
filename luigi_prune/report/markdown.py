"""The Markdown report: findings, commensurate levels, all results, settings and provenance."""

from __future__ import annotations

import json
from typing import Any

import yaml

from luigi_prune.report.contents import Contents, ResultSection
from luigi_prune.report.figures import Plot
from luigi_prune.report.report_tables import Table


def settings_text(settings: dict[str, Any]) -> str:
    """Return settings as YAML, order unchanged; values that JSON cannot represent become text."""
    plain = json.loads(json.dumps(settings, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)


def provenance_rows(provenance: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return provenance as flat pairs, with the keys of nested dictionaries joined by dots."""
    rows: list[tuple[str, str]] = []
    for name, value in provenance.items():
        if isinstance(value, dict):
            rows += provenance_rows(value, f"{prefix}{name}.")
        else:
            text = ", ".join(str(item) for item in value) if isinstance(value, (list, tuple)) else str(value)
            rows.append((f"{prefix}{name}", text))
    return rows


def to_markdown(contents: Contents, settings: dict[str, Any], provenance: dict[str, Any], files: dict[str, str]) -> str:
    """Return the report as GitHub-flavoured Markdown; `files` maps plot names to relative paths of PNGs."""
    parts = [f"# {contents.title}"]
    if contents.notice:
        parts.append(f"> **{contents.notice}**")
    parts += ["## Summary", *contents.findings, *(_table(table) for table in contents.summaries)]
    parts += [_plot(plot, files) for plot in contents.prunability]
    parts += ["## Experiment", _pairs(contents.facts)]
    for result in contents.results:
        parts += _result_section(result, files)
    if contents.potential:
        parts.append(_table(contents.potential))
    parts += ["## Layers", *(_plot(plot, files) for plot in contents.layers)] if contents.layers else []
    parts += ["## Training", *(_plot(plot, files) for plot in contents.curves)] if contents.curves else []
    parts += [_table(table) for table in (contents.measured, contents.costs, contents.checks) if table]
    parts += ["## Definitions", _pairs(contents.definitions)]
    parts += ["## Settings", f"```yaml\n{settings_text(settings)}```"]
    parts += ["## Provenance", _pairs(provenance_rows(provenance)) if provenance else "None recorded."]
    return "\n\n".join(parts) + "\n"


def _result_section(result: ResultSection, files: dict[str, str]) -> list[str]:
    parts = [f"## Tested on {result.test_set}"]
    parts += [_plot(plot, files) for _, plots in result.quality for plot in plots]
    parts += [_table(table) for table in result.compression]
    for split, levels in result.levels.items():
        chosen_on = (
            "validation split, reported on the test set" if split == "validation" else "test set (as torchprune does)"
        )
        parts.append(f"### Commensurate levels on {result.test_set}, chosen on the {chosen_on}")
        parts += [_table(table, depth=4) for table in levels]
    return [*parts, _table(result.all_results)]


def _table(table: Table, depth: int = 3) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    rule = "| --- |" + " ---: |" * (len(table.columns) - 1)
    lines = [line(table.columns), rule, *(line(row) for row in table.rows)]
    return f"{'#' * depth} {table.title}\n\n{table.caption}\n\n" + "\n".join(lines)


def _plot(plot: Plot, files: dict[str, str]) -> str:
    return f"![{plot.title}]({files[plot.name]})\n\n*{plot.title}.* {plot.caption}"


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return "\n".join(f"- **{name}**: {value}" for name, value in pairs)
