"""docs/parity.md opens with a verdict that counts its cells."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.parity import kind, verdict
from tests.compute.pruning.agreement import EXACT, NETWORKS, RANDOMISED, RATIOS
from tests.compute.pruning.lowrank_agreement import RANK_METHODS

PAGE = Path(__file__).parents[3] / "docs" / "parity.md"


def test_the_verdict_counts_the_cells_of_the_tables() -> None:
    text = PAGE.read_text()
    sections: dict[str, list[str]] = {}
    for part in text.split("\n## ")[1:]:
        rows = re.findall(r"^\| \w+ \| (?:mlp|convnet) \| [\d.]+ \|.*\| ([^|]+) \|$", part, flags=re.MULTILINE)
        sections[part.partition("\n")[0]] = rows
    cells = len(NETWORKS) * len(RATIOS)
    named = dict(zip(sections, (EXACT, RANDOMISED, RANK_METHODS), strict=True))
    sections = {name: reasons[: cells * len(named[name])] for name, reasons in sections.items()}
    assert [len(reasons) for reasons in sections.values()] == [cells * len(methods) for methods in named.values()]
    assert text.startswith(f"# Parity with the reference\n\n{verdict(sections)}\n")
    assert not [reason for reasons in sections.values() for reason in reasons if kind(reason) == "unexplained"]
