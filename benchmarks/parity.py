"""The parity table: what our methods and the reference compute on the golden networks, as Markdown.

    python benchmarks/parity.py [METHOD ...]

Run from the repository's root. All by the reference's rules. Methods without chance: at the size that the reference
achieved, the share of equal mask entries, the mean difference of the logits relative to their mean, sizes and
multiply-adds.
Methods with chance: at the budget of the reference's first seed, means over ten seeds and their differences in
standard errors: of the size, of the layers' counts (the largest), of the accuracy; then the first seed's distance
from our mean in standard deviations (the largest of size and layers).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.compute.pruning.agreement import (
    EXACT,
    NETWORKS,
    RANDOMISED,
    RATIOS,
    compare_exact,
    compare_sampled,
)

NOTES = """
Why a cell is not exact:

- The reference's bisections end on a jump of a step function; rounding decides on which side (one unit in one layer).
- `FilterUniNet` fails on convolutions in the reference, `PFPNetTop` at small ratios: no cells there.
- Only the first seed's budget is recorded; where its search ended elsewhere for other seeds, means differ by more than
  chance does, and the last column is the one to read.
- `EllOneNet`, `EllTwoNet`, `EllOneAndTwoNet` on `mlp` at 0.8: the reference cannot reach the ratio and asks for all but
  one entry of each filter. Some weights are so small that its single precision never sees them drawn.
- `SnipNet` on `mlp` at 0.8: scores that are exactly zero in one summation order are not in another; all are ties.
- `ThiNet`: the reference compares constants within a batch of four only, so it drops more channels than are constant.
- Sampled methods: any number m of draws with ceil(E(m)) = n will do; the reference's search ends on one of them.
"""


def exact_table(methods: list[str]) -> str:
    """Return the table of the methods without chance."""
    lines = [
        "| method | network | ratio | equal masks | logits off by | size | reference | multiply-adds | reference |"
    ]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for method in methods:
        for network in NETWORKS:
            for ratio in RATIOS:
                if (cell := compare_exact(network, method, ratio)) is not None:
                    lines.append(
                        f"| {method} | {network} | {ratio} | {100 * cell.masks:.2f} % | {cell.logits:.1e} "
                        f"| {cell.size} | {cell.reference_size} | {cell.flops} | {cell.reference_flops} |"
                    )
    return "\n".join(lines)


def sampled_table(methods: list[str]) -> str:
    """Return the table of the methods with chance."""
    lines = ["| method | network | ratio | size | reference | size off by | layers | accuracy | first seed |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for method in methods:
        for network in NETWORKS:
            for ratio in RATIOS:
                if (cell := compare_sampled(network, method, ratio)) is not None:
                    lines.append(
                        f"| {method} | {network} | {ratio} | {cell.size:.0f} | {cell.reference_size:.0f} "
                        f"| {cell.z_size:.1f} | {cell.z_counts:.1f} | {cell.z_accuracy:.1f} | {cell.first:.1f} |"
                    )
    return "\n".join(lines)


def main(wanted: list[str]) -> None:
    """Print both tables and the notes."""
    print("### Methods without chance\n")
    print(exact_table([method for method in EXACT if not wanted or method in wanted]))
    print("\n### Methods with chance\n")
    print(sampled_table([method for method in RANDOMISED if not wanted or method in wanted]))
    print(NOTES)


if __name__ == "__main__":
    main(sys.argv[1:])
