"""The page of methods, docs/methods.md, generated from the registry.

`python -m luigi_prune.registry.methods_page` prints it.
"""

from __future__ import annotations

from luigi_prune.registry.method_rows import METHODS
from luigi_prune.registry.rows import MethodRow

_HEAD = """\
# Pruning methods

Generated from the registry by `python -m luigi_prune.registry.methods_page > docs/methods.md`; edit the rows in
`luigi_prune/registry/` instead.

A method is a score of units, an allocation of how many are kept in each layer, and a selection of which. Experiment
files and `--methods` take a name or its short name. Attention's layers are its query, key, value and output
projections, a recurrent module's are its matrices; under `rules: reference` every method prunes linear layers and
ungrouped two-dimensional convolutions only. *Data*: the score reads calibration samples. *Random*: repetitions
differ. [fidelity.md](fidelity.md) lists where the reference (`torchprune`) departs from its papers, and what the
methods compute there.
"""

_TITLES = {
    "none": "Controls",
    "weight": "Single weights",
    "filter": "Filters",
    "channel": "Channels",
    "rank": "Low-rank decompositions",
}

_INTRODUCTIONS = {
    "none": "They prune nothing and are the baselines of all others.",
    "weight": "Least loss of accuracy for a size; faster only on hardware that skips zeros.",
    "filter": "Prunes whole outputs of layers, which leaves smaller dense layers: fewer multiply-adds on any hardware.",
    "channel": "As filters, scored by their effect on the next layer.",
    "rank": "Splits a layer into two thinner ones, dense except for Messi's zeros; every layer keeps its outputs.",
}

_USES = {
    "ReferenceNet": "Always: the baseline of all curves",
    "FakeNet": "To separate the gain of retraining from the loss of pruning",
    "ThresNet": "First choice for single weights: no data, hard to beat after retraining",
    "SnipNet": "Pruning before or without training, when magnitudes are uninformative",
    "SiPPNet": "Pruning without retraining, given a few calibration samples",
    "SiPPNetRand": "For an unbiased network with an error bound rather than the best accuracy",
    "SiPPNetHybrid": "As SiPPNetRand, with the accuracy of a deterministic selection",
    "ScratchNet": "To see whether the weights that are kept matter, or only their places; retrain as long as you train",
    "ShuffledNet": "To see whether the places of the weights matter, or only their number per layer",
    "ScratchFilterNet": "To see whether filters are worth keeping, or a small network trained from scratch is as good",
    "UniNet": "Baseline: random selection of weights",
    "EllOneNet": "Baseline of sampling methods",
    "EllTwoNet": "Baseline of sampling methods; favours large weights more than EllOneNet",
    "EllOneAndTwoNet": "Baseline of sampling methods, between the other two",
    "FilterThresNet": "First choice for filters: no data, fast",
    "SoftNet": "As FilterThresNet; filters with few large weights survive",
    "FilterUniNet": "Baseline: random selection of channels",
    "ThiNet": "If channels largely cancel or duplicate each other",
    "PFPNet": "First choice for channels if layers differ in redundancy",
    "PFPNetRand": "To check the sampling bound of PFPNet",
    "PFPNetTop": "Between PFPNet and PFPNetRand",
}


def methods_markdown() -> str:
    """Return the page of methods: one table per granularity."""
    parts = [_HEAD]
    for granularity, title in _TITLES.items():
        rows = [row for row in METHODS.values() if row.granularity == granularity]
        if rows:
            layers = f" Prunes {rows[0].layers}." if rows[0].layers else ""
            parts.append(f"## {title}\n\n{_INTRODUCTIONS[granularity]}{layers}\n\n{_table(rows)}")
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
