"""The pruned share of every layer under every method, as heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luigi_prune.analysis.statistics import spread
from luigi_prune.report.cells import Cell, Table
from luigi_prune.report.style import MethodStyle

Arrays = dict[str, np.ndarray]

MOST_ROWS = 40


def layer_tables(arrays: Arrays, styles: Sequence[MethodStyle], ratios: Sequence[int]) -> list[Table]:
    """Return one table per ratio, layers as rows; none without data. Many layers are shown in groups of neighbours."""
    names, totals = [str(name) for name in arrays["axes/layer"]], arrays["layers/total"]
    pruned = [at for at, style in enumerate(styles) if not style.nominal]
    groups = np.array_split(np.arange(len(names)), min(len(names), MOST_ROWS)) if names else []
    tables = []
    for ratio in ratios:
        kept = arrays["layers/kept"][:, ratio]
        methods = [at for at in pruned if np.isfinite(kept[:, :, at]).any()]
        if not methods or not groups:
            continue
        rows = []
        for group in groups:
            total = totals[group].sum()
            share = spread(1.0 - kept[..., group].sum(axis=-1) / total).mean if total else np.full(len(styles), np.nan)
            last = names[group[-1]]
            label = names[group[0]] if len(group) == 1 else f"{names[group[0]]} … {last}"
            cells = [_share(float(share[method])) for method in methods]
            rows.append((label, f"{total:,.0f}", *cells))
        keep = float(arrays["axes/keep_ratio"][ratio])
        caption = (
            "Pruned share of the weights of each layer in percent, mean over nets and repetitions, from the input to "
            f"the output; 100: nothing of the layer is left. Target: {100 * (1 - keep):.3g} % of all parameters."
        )
        columns = ("layer", "weights", *(styles[method].plain for method in methods))
        tables.append(
            Table(f"Layers at keep ratio {keep:.3g}", caption, columns, rows, name=f"layers-{keep:.3g}", matrix=True)
        )
    return tables


def _share(value: float) -> Cell:
    if not np.isfinite(value):
        return Cell("–")
    # 100 only for a layer of which nothing is left
    percent = 100 * value if value == 1 else min(100 * value, 99.9)
    return Cell("100" if value == 1 else f"{percent:.3g}", shade=value, tone="bad" if value == 1 else "")
