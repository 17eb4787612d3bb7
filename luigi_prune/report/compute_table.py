"""What a network costs in all: training, and every step of pruning and retraining that leads to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from luigi_prune.analysis.censoring import runs_at_level
from luigi_prune.analysis.commensurate import choose
from luigi_prune.analysis.costs import TotalSeconds, total_seconds
from luigi_prune.analysis.inference import over_nets
from luigi_prune.analysis.leaderboard import LeaderboardRow
from luigi_prune.analysis.verdict import Verdict
from luigi_prune.report.cells import NOTHING, Cell, Table, duration, of_censored, of_interval, points
from luigi_prune.report.curves import Quality
from luigi_prune.report.style import MethodStyle

Arrays = dict[str, np.ndarray]


def behind_level(arrays: Arrays, measured: Arrays, meta: dict[str, Any], found: Verdict) -> dict[int, TotalSeconds]:
    """Return the mean seconds behind the leaderboard's networks per method; {} if they were not measured."""
    behind = total_seconds(measured, str(meta.get("mode", "")))
    if behind is None:
        return {}
    chosen = choose(arrays, found.test_set, found.chosen_on, metric=found.metric)
    runs = runs_at_level(chosen, arrays, found.level)
    means = {}
    for method in found.order:
        parts = [over_nets(runs.take(part)[..., method]) for part in behind]
        if all(len(part) for part in parts):
            means[method] = TotalSeconds(*(part.mean() for part in parts))
    return means


def compute_table(
    behind: dict[int, TotalSeconds],
    rows: Sequence[LeaderboardRow],
    found: Verdict,
    styles: Sequence[MethodStyle],
    quality: Quality,
    settings: dict[str, Any],
) -> Table | None:
    """Return quality against total compute of the leaderboard's networks, None if it was not measured."""
    if not behind:
        return None
    unit = f" ({quality.unit})" if quality.unit else ""
    body: list[tuple[str, ...]] = []
    for row in rows:
        if (cost := behind.get(row.method)) is None:
            continue
        name = Cell(styles[row.method].plain, method=row.method)
        times = [Cell(duration(float(part)), order=float(part)) for part in (*cost, cost.total)]
        relative = float(cost.total / cost.training) if cost.training > 0 else float("nan")
        share = Cell(f"{relative:.3g}×" if np.isfinite(relative) else NOTHING, order=relative)
        body.append(
            (name, *times, share, of_censored(row.compression[found.level]), of_interval(row.change, quality.scale))
        )
    between = settings.get("experiments", {}).get("retrainIterations") or -1
    caption = (
        f"Mean time behind the networks that the leaderboard has at {points(found.level)} {found.unit}: training of "
        "the unpruned network, and all steps of pruning and retraining that lead there, in a cascade those of the "
        "ratios before, too. "
        + "Ratios that were pruned but not retrained are not counted. " * (int(between) > 0)
        + "Within the tasks; depends on the machine. The plot shows all ratios so (switch: time)."
    )
    columns = (
        "method", "training", "pruning", "retraining", "in all", "over training", "compression", f"test change{unit}",
    )  # fmt: skip
    return Table("Quality against total compute", caption, columns, body, name="total-compute")
