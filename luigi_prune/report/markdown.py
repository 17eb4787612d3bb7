"""The Markdown report: verdict, leaderboard, all results, commensurate levels, settings and provenance."""

from __future__ import annotations

import json
from typing import Any

import yaml

from luigi_prune.analysis.aggregate import REFERENCE
from luigi_prune.report.cells import Table, whole
from luigi_prune.report.contents import Contents
from luigi_prune.report.figures import Plot
from luigi_prune.report.provenance_lines import provenance_lines


def settings_text(settings: dict[str, Any]) -> str:
    """Return settings as YAML, order unchanged; values that JSON cannot represent become text.

    Of names and colours only those of the experiment's methods are there.
    """
    plain = json.loads(json.dumps(settings, default=str))
    shown = {REFERENCE, *plain.get("experiments", {}).get("methods", ())}
    for key in ("networkNames", "networkColors"):
        if isinstance(plain.get(key), dict):
            plain[key] = {method: value for method, value in plain[key].items() if method in shown}
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)


def to_markdown(contents: Contents, settings: dict[str, Any], provenance: dict[str, Any], files: dict[str, str]) -> str:
    """Return the report as GitHub-flavoured Markdown; `files` maps plot names to relative paths of pictures."""
    parts = [f"# {contents.title}"]
    if contents.notice:
        parts.append(f"> **{contents.notice}**")
    card = contents.card
    parts += ["## Verdict", f"**{card.headline}**", *card.sentences]
    if card.decision:
        parts.append(f"{card.decision}" + (f": {'; '.join(card.reasons)}." if card.reasons else "."))
    parts += [_pairs(card.facts)] if card.facts else []
    parts += [f"Cost: {' '.join(contents.cost)}"] if contents.cost else []
    parts += [_plot(plot, files) for plot in contents.main]
    parts += [_table(table) for table in (contents.glance, contents.leaderboard, *contents.pairs) if table]
    parts += ["## Setting", contents.setting, _pairs(contents.facts)]
    parts += [_table(table) for table in (contents.test_sets, contents.excess) if table]
    parts += [_plot(contents.excess_lines, files)] if contents.excess_lines else []
    parts += [_table(table) for table in contents.changes]
    parts += [_plot(plot, files) for plot in contents.tradeoffs]
    parts += ["## Layers", *(_table(table) for table in contents.layer_tables)] if contents.layer_tables else []
    parts += [_plot(plot, files) for plot in contents.layers]
    parts += ["## Cost", *(_table(table) for table in contents.costs)] if contents.costs else []
    parts += ["## Training", *(_plot(plot, files) for plot in contents.curves)] if contents.curves else []
    parts += ["## Results", _table(contents.all_results), *(_table(table) for table in contents.compression)]
    parts += [_table(table) for table in contents.every_level]
    for test_set, by_split in contents.levels.items():
        for split, levels in by_split.items():
            chosen_on = (
                "validation split, reported on the test set"
                if split == "validation"
                else "test set (as torchprune does)"
            )
            parts.append(f"### Commensurate levels on {test_set}, chosen on the {chosen_on}")
            parts += [_table(table, depth=4) for table in levels]
    parts.append(_table(contents.checks))
    parts += ["## Definitions", _pairs(contents.definitions)]
    parts += ["## Settings", f"```yaml\n{settings_text(settings)}```"]
    parts += ["## Provenance", _pairs(provenance_lines(provenance)) if provenance else "None recorded."]
    return "\n\n".join(parts) + "\n"


def _table(table: Table, depth: int = 3) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(whole(cell).replace("|", r"\|").replace("<", "&lt;") for cell in cells) + " |"

    rule = "| --- |" + " ---: |" * (len(table.columns) - 1)
    lines = [line(table.columns), rule, *(line(row) for row in table.rows)]
    return f"{'#' * depth} {table.title}\n\n{table.caption}\n\n" + "\n".join(lines)


def _plot(plot: Plot, files: dict[str, str]) -> str:
    return f"![{plot.title}]({files[plot.name]})\n\n*{plot.title}.* {plot.caption}"


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return "\n".join(f"- **{name}**: {value}" for name, value in pairs)
