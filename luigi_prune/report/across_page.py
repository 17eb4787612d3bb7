"""The report over several experiments: `comparison.html`, `comparison.md` and `comparison.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from luigi_prune.analysis.across import Across, MemberResult
from luigi_prune.analysis.censoring import Censored
from luigi_prune.report.across_drawings import axis_drawing, rank_drawing
from luigi_prune.report.palette import on_dark, on_light

TEMPLATES = Path(__file__).parent / "templates"
NOTHING = "–"


def write_comparison(
    folder: Path,
    members: Sequence[MemberResult],
    found: Across,
    links: Sequence[str | None],
    labels: Mapping[str, str],
    colors: Mapping[str, str],
) -> Path:
    """Write the three files and return the page; `links` are the relative paths of the members' own reports."""
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(name for name in dict.fromkeys(n for m in members for n in m.compression))
    rows = [_row(member, names, labels) for member in members]
    content = {
        "title": f"{len(members)} experiments compared",
        "findings": findings(members, found, labels),
        "columns": ("experiment", *_keys(members), "level", "nets", "results", "leads", *(labels[n] for n in names)),
        "rows": rows,
        "links": list(links),
        "ranks": _ranks(found, labels),
        "notes": NOTES,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    colors = {name: f"light-dark({on_light(color)}, {on_dark(color)})" for name, color in colors.items() if color}
    drawings = [Markup(rank_drawing(found, labels, colors)), Markup(axis_drawing(members, labels, colors))]
    page = environment.get_template("across.html").render(
        **{**content, "rows": [[_value_and_note(cell) for cell in row] for row in rows]},
        drawings=[drawing for drawing in drawings if drawing],
        style=Markup((TEMPLATES / "style.css").read_text()),
    )
    (folder / "comparison.html").write_text(page, encoding="utf-8")
    (folder / "comparison.md").write_text(_markdown(content), encoding="utf-8")
    with (folder / "comparison.csv").open("w", newline="", encoding="utf-8") as file:
        entries = csv_rows(members, found)
        writer = csv.DictWriter(file, list(entries[0]) if entries else ["experiment"])
        writer.writeheader()
        writer.writerows(entries)
    return folder / "comparison.html"


NOTES = (
    "Compression (original over kept parameters) within the level of each experiment: geometric mean over nets with "
    "its 95 % interval. ≥: some run is still within the level at its smallest network. <: some run nowhere reaches it "
    "and enters with its largest network. ≈: both.",
    "A method leads an experiment only if its paired 95 % interval against every other method excludes 0.",
    "Ranks are by mean compression on the grid of keep ratios; equal places share the mean rank. Mean ranks that are "
    "less than the critical difference apart (Nemenyi, 5 %) are not shown different. The test takes experiments for "
    "independent, which those that share trained networks or a data set are not.",
)


def findings(members: Sequence[MemberResult], found: Across, labels: Mapping[str, str]) -> list[str]:
    """Return what the comparison says, in a few sentences."""
    partial = [f"{m.name} ({m.missing} of {m.expected} results missing)" for m in members if m.missing]
    text = [f"PARTIAL: {', '.join(partial)}."] if partial else []
    if not found.ranks_experiments:
        return [*text, "Fewer than two experiments have results for the same two methods, so nothing is ranked."]
    best = labels[found.methods[0]]
    ahead = [
        labels[name]
        for name, rank in zip(found.methods, found.mean_rank, strict=True)
        if rank - found.mean_rank[0] >= found.critical_difference
    ]
    text.append(
        f"{best} has the best mean rank, {found.mean_rank[0]:.2f} over {len(found.members)} experiments"
        + (f"; it ranks better than {', '.join(ahead)}." if ahead else ", but no method is shown to rank worse.")
    )
    if np.isfinite(found.p):
        verb = "differ" if found.p <= 0.05 else "are not shown to differ"
        text.append(f"Ranks {verb} (Friedman's test, p = {found.p:.2g}).")
    leaders = [labels[m.methods[m.verdict.leader]] for m in members if m.verdict and m.verdict.leader is not None]
    counted = ", ".join(f"{name} in {leaders.count(name)}" for name in dict.fromkeys(leaders)) or "no method in any"
    text.append(f"Clear leaders: {counted} of {len(members)} experiments.")
    if found.left_out:
        text.append(f"Not ranked, because not in every experiment: {', '.join(labels[n] for n in found.left_out)}.")
    return text


def _ranks(found: Across, labels: Mapping[str, str]) -> list[tuple[str, str]]:
    if not found.ranks_experiments:
        return []
    return [(labels[name], f"{rank:.2f}") for name, rank in zip(found.methods, found.mean_rank, strict=True)]


def _keys(members: Sequence[MemberResult]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for member in members for key in member.varied))


def _row(member: MemberResult, names: Sequence[str], labels: Mapping[str, str]) -> list[str]:
    found = member.verdict
    done = f"{member.expected - member.missing} of {member.expected}" + (" PARTIAL" if member.missing else "")
    cells = [member.name, *(str(value) for value in member.varied.values())]
    if found is None:
        return [*cells, NOTHING, NOTHING, done, NOTHING, *(NOTHING for _ in names)]
    leader = labels[member.methods[found.leader]] if found.leader is not None else "no method clearly"
    cells += [f"{100 * found.level:g} {found.unit}", str(found.nets), done, leader]
    return [*cells, *(shown(member.compression.get(name)) for name in names)]


def shown(value: Censored | None) -> str:
    """Return a compression as text: `≥ 4.1× [3.2, 5.3] (3 of 5)`, the bracket only if runs miss the level."""
    if value is None or not np.isfinite(value.value):
        return NOTHING
    text = f"{value.sign} {value.value:.3g}×".strip()
    if np.isfinite(value.low):
        text += f" [{value.low:.3g}, {value.high:.3g}]".replace("inf]", "∞)")
    return text if value.reached == value.of else f"{text} ({value.reached} of {value.of})"


def _value_and_note(cell: str) -> tuple[str, str]:
    """Return a compression and, for small print, its interval and number of runs; any other cell without a note."""
    value, cross, note = cell.partition("× ")
    return (f"{value}×", note) if cross and note[0] in "[(" else (cell, "")


def csv_rows(members: Sequence[MemberResult], found: Across) -> list[dict[str, Any]]:
    """Return one row per experiment and method."""
    rows = []
    for member in members:
        for name, value in member.compression.items():
            assert member.verdict is not None
            is_ranked = name in found.methods
            rank = found.ranks[found.members.index(member.name), found.methods.index(name)] if is_ranked else ""
            leader = member.verdict.leader
            rows.append(
                {
                    "experiment": member.name, **member.varied, "test_set": member.verdict.test_set,
                    "metric": member.verdict.metric, "level": member.verdict.level, "method": name,
                    "bound": value.sign, "compression": value.value, "low": value.low, "high": value.high,
                    "reached": value.reached, "runs": value.of, "rank": rank,
                    "leads": int(leader is not None and member.methods[leader] == name), "missing": member.missing,
                }
            )  # fmt: skip
    return rows


def _markdown(content: Mapping[str, Any]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    columns = content["columns"]
    table = [line(columns), "|" + " --- |" * len(columns), *(line(row) for row in content["rows"])]
    ranks = ["| method | mean rank |", "| --- | ---: |", *(line(row) for row in content["ranks"])]
    parts = [f"# {content['title']}", *content["findings"], "\n".join(table)]
    parts += ["\n".join(ranks)] if content["ranks"] else []
    parts += content["notes"]
    return "\n\n".join(parts) + "\n"
