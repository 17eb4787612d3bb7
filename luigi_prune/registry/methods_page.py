"""The page of methods, docs/methods.md, written from the catalogue.

`python -m luigi_prune.registry.methods_page` prints it.
"""

from __future__ import annotations

from luigi_prune.registry.method_rows import METHODS
from luigi_prune.registry.rows import MethodRow

_HEAD = """\
# Pruning methods

Written from the catalogue by `python -m luigi_prune.registry.methods_page > docs/methods.md`; edit the rows in
`luigi_prune/registry/` instead.

A method is a score of units, an allocation of how many stay in each layer, and a selection of which. Experiment files
and `--methods` take a name or its short name. *Data*: the score reads calibration samples. *Random*: repetitions
differ. What the methods compute where the reference (`torchprune`) departs from its papers stands in
[fidelity.md](fidelity.md).
"""

_TITLES = {
    "none": "Controls",
    "weight": "Single weights",
    "filter": "Filters",
    "channel": "Channels",
    "rank": "Low-rank decompositions",
}

_INTRODUCTIONS = {
    "none": "They prune nothing and show what the others are measured against.",
    "weight": "Least loss of accuracy for a size; faster only on hardware that skips zeros.",
    "filter": "Whole outputs of layers go, so that smaller dense layers remain: fewer multiply-adds on any hardware.",
    "channel": "As filters, judged by what the next layer makes of them.",
    "rank": "Layers become two thinner ones, dense but for Messi's zeros; every layer keeps its outputs.",
}

_USES = {
    "ReferenceNet": "Always: the line that all curves are compared with",
    "FakeNet": "To tell the gain of retraining from the loss of pruning",
    "ThresNet": "First choice for single weights: no data, hard to beat after retraining",
    "SnipNet": "Pruning before or without training, where magnitudes say little",
    "SiPPNet": "Pruning without retraining, where a few calibration samples are at hand",
    "SiPPNetRand": "Where an unbiased network with an error bound is wanted, not the best accuracy",
    "SiPPNetHybrid": "As SiPPNetRand with the accuracy of a deterministic choice",
    "UniNet": "Baseline: what chance achieves with single weights",
    "EllOneNet": "Baseline of sampling methods",
    "EllTwoNet": "Baseline of sampling methods; favours large weights more than EllOneNet",
    "EllOneAndTwoNet": "Baseline of sampling methods, between the other two",
    "FilterThresNet": "First choice for filters: no data, fast",
    "SoftNet": "As FilterThresNet; filters with few large weights survive",
    "FilterUniNet": "Baseline: what chance achieves with channels",
    "ThiNet": "Where channels largely cancel or duplicate each other",
    "PFPNet": "First choice for channels when layers differ in how much they can lose",
    "PFPNetRand": "To check the sampling bound behind PFPNet",
    "PFPNetTop": "Between PFPNet and PFPNetRand",
}


def methods_markdown() -> str:
    """Return the page of methods: one table per granularity."""
    parts = [_HEAD]
    for granularity, title in _TITLES.items():
        rows = [row for row in METHODS.values() if row.granularity == granularity]
        if rows:
            parts.append(f"## {title}\n\n{_INTRODUCTIONS[granularity]}\n\n{_table(rows)}")
    return "\n".join(parts)


def _table(rows: list[MethodRow]) -> str:
    lines = ["| name | short | definition | when to use it | data | random | paper |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        use = row.use or _USES.get(row.name, "")
        cells = (
            f"`{row.name}`",
            f"`{row.short}`",
            row.summary,
            use,
            _yes(row.needs_data),
            _yes(row.randomised),
            row.paper,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _yes(value: bool) -> str:
    return "yes" if value else ""


if __name__ == "__main__":
    print(methods_markdown(), end="")
