"""The parity tables: results of our methods and of the reference on the golden networks, as Markdown.

    python benchmarks/parity.py [METHOD ...] [--write docs/parity.md]

Run from the repository's root (two minutes). All results use the reference's rules. The last column gives the reason
for every cell that is not equal.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from luigi_prune import registry
from tests.compute.pruning.agreement import (
    EXACT,
    NETWORKS,
    RANDOMISED,
    RATIOS,
    Exact,
    Sampled,
    compare_exact,
    compare_sampled,
)
from tests.compute.pruning.lowrank_agreement import CLUSTERED, OPTIMAL, RANK_METHODS, Ranked, compare_ranks

SEEDS, THEIR_SEEDS, FIGURES = 20, 10, 5.5  # figures: size, accuracy, and the counts of three or four layers

INTRODUCTION = """# Parity with the reference

{verdict}

Made by `python benchmarks/parity.py --write docs/parity.md` from stored results of the reference (`torchprune`) on two
networks trained on scikit-learn's digits, and ours with `rules="reference"`. Differences of the default,
`rules="paper"`: [fidelity.md](fidelity.md). "=": equal.
"""

EXACT_TEXT = """## Weights and filters, deterministic

At the size that the reference achieved: the share of equal entries in the masks of all parameters, the mean difference
of the test logits relative to their mean, sizes and multiply-adds. "At budget": the number of mask entries that differ
if our allocation gets the last budget of the reference's search instead of a size.
"""

SAMPLED_TEXT = """## Weights and filters, randomised

The reference recorded each step of its budget search for its first seed only; the ten seeds ended at different
budgets. So the mean of ten results is compared with searches of ours: we replay its search (Brent's method on the
ratio, to 0.005 absolute, ended by any size within 0.5 %, then one more draw), which reproduces all recorded steps of
all golden cells.
Columns: mean sizes over {seeds} of our seeds and its ten, then the differences of size, of layers' counts (the largest)
and of accuracy in standard errors, from the pooled spread of both; and the reference's first seed at its last
budget, in standard deviations of ours at that budget (the largest of size and layers).
"""

RANK_TEXT = """## Low rank

At the size that the reference achieved: layers with the same rank, groups and folding; the largest difference of the
recomposed weights (times a random vector) and of the logits, relative to the largest entry; sizes and multiply-adds
(the reference's with grouped encoders); the largest relative operator-norm error over layers. For ALDS it is
ALDS's objective, for both sides: the largest dropped singular value of a chunk over the norm of the layer's matrix.
"""

BY_CHANCE = {  # a test names these cells, too
    ("EllOneNet", "mlp", "0.1"): "chance: 2.0 (size) and 2.9 (layers) with 200 seeds of ours",
    (
        "PFPNetRand",
        "convnet",
        "0.5",
    ): "chance: 2.7 with 40, 3.0 with 200 seeds of ours; its ten accuracies are 0.08-0.18",
}
NO_RESULT = "no result"
FAILED = {
    "FilterUniNet": "the reference fails: it scores the kernel axis",
    "PFPNetTop": "the reference fails: stale probabilities are NaN",
}


def exact_reason(method: str, cell: Exact) -> str:
    """Return why the cell is not equal."""
    if cell.at_budget:
        return "ties: these entries score 0 on both sides" if method == "SnipNet" else "unexplained"
    return "=" if cell.masks == 1 else "another level of nearly that size: at its budget all is equal"


def sampled_reason(key: tuple[str, str, str], cell: Sampled) -> str:
    """Return why a figure is outside three standard errors."""
    if max(cell.z_size, cell.z_counts, cell.z_accuracy) <= 3:
        return "within 3"
    return BY_CHANCE.get(key, "unexplained")


def rank_reason(method: str, cell: Ranked) -> str:
    """Return why the decomposition is not equal."""
    if method in CLUSTERED:
        return "clusters are drawn; choices equal" if cell.same_layers == cell.layers else "unexplained"
    if cell.same_layers == cell.layers:
        off = abs(cell.size - cell.reference_size)
        return "=" if not off else "factors' entries below 1e-18 are 0 in one" if off <= 2 else "unexplained"
    if method in OPTIMAL and cell.error <= cell.reference_error * (1 + 1e-6):
        return "the exact optimum: no larger error than by its search"
    if method == "ALDSNetOptK":
        return "ours keeps at most the fraction, in each layer with the least error"
    return "unexplained"


Compare = Callable[[str, str, str], Any]


def cells(methods: list[str], compare: Compare) -> Iterator[tuple[str, str, str, Any]]:
    """Yield method, network, ratio and agreement, None if the reference has no result."""
    for method in methods:
        for network in NETWORKS:
            for ratio in RATIOS:
                yield method, network, ratio, compare(network, method, ratio)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; the first two columns and the last are text, the others numbers."""
    rules = ["---" if column in (0, 1, len(head) - 1) else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rules, *rows])


KINDS = ("equal", "within noise", "explained", "no result of the reference", "unexplained")


def kind(reason: str) -> str:
    """Return which of KINDS a cell is, by its reason."""
    if reason in ("=", "unexplained"):
        return "equal" if reason == "=" else reason
    if reason == "within 3" or reason.startswith("clusters are drawn"):
        return "within noise"
    return "no result of the reference" if reason in (*FAILED.values(), NO_RESULT) else "explained"


def verdict(sections: dict[str, list[str]]) -> str:
    """Return the counts of all cells by kind, in a sentence and in a table; `sections`: the cells' reasons."""
    total = Counter(kind(reason) for reasons in sections.values() for reason in reasons)
    counted = ", ".join(f"{total[each]} {each}" for each in KINDS)
    head = ["", *KINDS, "cells"]
    rules = ["---", *["---:"] * (len(head) - 1)]
    rows = [
        [name, *(str(Counter(map(kind, reasons))[each]) for each in KINDS), str(len(reasons))]
        for name, reasons in sections.items()
    ]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in [head, rules, *rows])
    return f"""**Of {total.total()} cells (method, network and ratio): {counted}.** A cell is equal if all masks or
decompositions are, within noise if its differences are those of random draws (three standard errors). The last column
of the tables below gives the cause of each other one.

{lines}"""


def exact_table(methods: list[str]) -> tuple[str, list[str]]:
    """Return the table of the deterministic methods, and the reasons of its cells."""
    head = ["method", "network", "ratio", "equal masks", "at budget", "logits off by", "size", "reference"]
    rows = []
    for method, network, ratio, cell in cells(methods, compare_exact):
        agreement = [f"{100 * cell.masks:.2f} %", str(cell.at_budget), f"{cell.logits:.0e}"]
        numbers = [str(number) for number in (cell.size, cell.reference_size, cell.flops, cell.reference_flops)]
        rows.append([method, network, ratio, *agreement, *numbers, exact_reason(method, cell)])
    return table([*head, "multiply-adds", "reference", "why"], rows), [row[-1] for row in rows]


def sampled_table(methods: list[str]) -> tuple[str, list[str]]:
    """Return the table of the randomised methods, with the number of figures outside, and the reasons of its cells."""
    head = ["method", "network", "ratio", "size", "reference", "size", "layers", "accuracy", "first seed", "why"]
    rows, outside, compared = [], 0, 0
    for method, network, ratio, cell in cells(methods, functools.partial(compare_sampled, seeds=SEEDS)):
        if cell is None:
            rows.append([method, network, ratio, *["-"] * 6, FAILED.get(method, NO_RESULT)])
            continue
        off = (cell.z_size, cell.z_counts, cell.z_accuracy)
        outside, compared = outside + sum(value > 3 for value in off), compared + 1
        numbers = [f"{cell.size:.0f}", f"{cell.reference_size:.0f}", *(f"{z:.1f}" for z in (*off, cell.first))]
        rows.append([method, network, ratio, *numbers, sampled_reason((method, network, ratio), cell)])
    expected = FIGURES * compared * 2 * stats.t.sf(3, SEEDS + THEIR_SEEDS - 2)
    count = (
        f"\nOutside three standard errors: {outside} figures of {compared} cells; expected by chance: {expected:.1f}.\n"
    )
    return table(head, rows) + "\n" + count, [row[-1] for row in rows]


def rank_table(methods: list[str]) -> tuple[str, list[str]]:
    """Return the table of the low-rank methods, and the reasons of its cells."""
    head = ["method", "network", "ratio", "same layers", "weights off by", "logits off by", "size", "reference"]
    rows = []
    for method, network, ratio, cell in cells(methods, compare_ranks):
        agreement = [f"{cell.same_layers} of {cell.layers}", _small(cell.weights), _small(cell.logits)]
        numbers = [str(number) for number in (cell.size, cell.reference_size, cell.flops, cell.reference_flops)]
        errors = [f"{cell.error:.4f}", f"{cell.reference_error:.4f}"]
        rows.append([method, network, ratio, *agreement, *numbers, *errors, rank_reason(method, cell)])
    return table([*head, "multiply-adds", "reference", "error", "reference", "why"], rows), [row[-1] for row in rows]


def choices_table(methods: list[str]) -> str:
    """Return the choices of every cell in which some differ: rank x groups, folding; "-" for an unchanged layer."""
    rows = [
        [method, network, ratio, _choices_text(cell.choices), _choices_text(cell.reference_choices)]
        for method, network, ratio, cell in cells(methods, compare_ranks)
        if cell.same_layers < cell.layers
    ]
    return table(["method", "network", "ratio", "ours", "reference"], rows)


def _choices_text(choices: list[list[int]]) -> str:
    return ", ".join("-" if rank < 0 else f"{rank}x{groups} ({folding})" for rank, groups, folding in choices)


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def report(selected: list[str]) -> str:
    """Return the page for the methods in `selected`, or for all methods if it is empty."""
    exact, sampled, ranks = (
        [method for method in methods if not selected or method in selected]
        for methods in (EXACT, RANDOMISED, RANK_METHODS)
    )
    differing = [method for method in ranks if method in (*OPTIMAL, "ALDSNetOptK")]
    parts: list[str] = []
    sections: dict[str, list[str]] = {}
    for text, chosen, make in (
        (EXACT_TEXT, exact, exact_table),
        (SAMPLED_TEXT.format(seeds=SEEDS), sampled, sampled_table),
        (RANK_TEXT, ranks, rank_table),
    ):
        if chosen:
            rows, sections[text.partition("\n")[0].removeprefix("## ")] = make(chosen)
            parts += [text, rows]
    parts = [INTRODUCTION.format(verdict=verdict(sections)), *parts]
    choices = (
        "Cells with different choices, layer by layer, as rank x groups (folding); `-`: the layer is left as it is.\n"
    )
    parts += [choices, choices_table(differing)] if differing else []
    return "\n".join(f"{part.strip()}\n" for part in parts)


def main() -> None:
    """Print the page, or write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="reference class names; default: all")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page to FILE")
    arguments = parser.parse_args()
    if unknown := [method for method in arguments.methods if method not in registry.METHODS]:
        parser.error(f"no such method: {', '.join(unknown)}")
    logging.getLogger("luigi_prune").setLevel(logging.ERROR)
    page = report(arguments.methods)
    if arguments.write:
        arguments.write.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
