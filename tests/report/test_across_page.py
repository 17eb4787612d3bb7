"""The report over several experiments."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

from luigi_prune.analysis.across import MemberResult, across
from luigi_prune.report.across_drawings import axis_drawing, rank_drawing
from luigi_prune.report.across_page import shown, write_comparison
from tests.analysis.test_across import member

LABELS = {"A": "A<1>", "B": "Bee", "C": "C"}
COLORS = {"A": "#0072b2", "B": "#d55e00", "C": "#009e73"}


def members() -> list[MemberResult]:
    reached = [{"A": [1, 1, 1], "B": [4, 4, 4], "C": [2, 2, 0]}, {"A": [1, 1, 1], "B": [5, 5, 5], "C": [2, 3, 2]}]
    found = [replace(member(f"rate{at}", table), varied={"lr": 0.1 / at}) for at, table in enumerate(reached, 1)]
    return [*found, MemberResult("rate3", {"lr": 0.01}, None, ("ReferenceNet", "A", "B", "C"), 30, 30)]


def test_a_comparison_is_a_page_a_text_and_rows(tmp_path: Path) -> None:
    judged = members()
    page = write_comparison(tmp_path / "out", judged, across(judged), ["one.html", "two.html", None], LABELS, COLORS)
    html = page.read_text(encoding="utf-8")
    assert '<p class="banner" role="alert">PARTIAL: rate3 (30 of 30 results missing).</p>' in html
    assert "&lt; 3.17×<small>[1, 8.58] (2 of 3)</small>" in html
    assert "0 of 30 PARTIAL" in html
    assert html.count("<a href=") == 2
    assert html.count("<svg") == 2
    assert "<1>" not in html
    markdown = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert "Bee has the best mean rank, 1.00 over 2 experiments" in markdown
    assert "Clear leaders: Bee in 2 of 3 experiments." in markdown
    with (tmp_path / "out" / "comparison.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3
    assert [(row["lr"], row["leads"]) for row in rows if row["method"] == "B"] == [("0.1", "1"), ("0.05", "1")]
    assert {row["bound"] for row in rows if row["experiment"] == "rate2" and row["method"] == "B"} == {"≥"}


def test_drawings_are_well_formed_and_only_of_what_there_is() -> None:
    judged = members()
    for drawing in (rank_drawing(across(judged), LABELS, COLORS), axis_drawing(judged, LABELS, COLORS)):
        texts = [element.text for element in ElementTree.fromstring(drawing).iter("text")]
        assert {"A<1>", "Bee", "C"} <= set(texts)
    assert rank_drawing(across(judged[:1]), LABELS, COLORS) == ""
    named = [replace(entry, varied={"network.name": entry.name}) for entry in judged]
    assert axis_drawing(named, LABELS, COLORS) == ""


def test_a_compression_shows_its_bounds_and_runs() -> None:
    first, second, _ = members()
    assert shown(first.compression["C"]) == "< 3.17× [1, 8.58] (2 of 3)"
    assert shown(second.compression["B"]) == "≥ 32× [32, ∞)"
    assert shown(None) == "–"
