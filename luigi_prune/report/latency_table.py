"""Measured latency beside multiply-adds, if the experiment measures it (`experiments.measureLatency`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from luigi_prune.analysis.statistics import spread
from luigi_prune.report.cells import Table, of_spread
from luigi_prune.report.style import MethodStyle

PREFIX = "latency_"
_CAPTION = (
    "Multiply-adds and latency over those of the dense network. Masked: zeros do not count as multiply-adds, but they "
    "are computed. Compact: without the channels that can be removed. A ratio of latencies is the median of rounds in "
    "which all networks are timed in turn, on a batch of {batch} samples with {threads} thread(s); mean ± sample "
    "standard deviation over runs. Depends on the machine. Dense: {dense:.3g} ms per batch (median)."
)


def latency_table(
    arrays: Mapping[str, np.ndarray], measured: Mapping[str, np.ndarray], styles: Sequence[MethodStyle]
) -> Table | None:
    """Return the table, a row per method and keep ratio; None without measurements."""
    if f"{PREFIX}dense" not in measured:
        return None
    dense = measured[f"{PREFIX}dense"]
    nothing = np.full_like(dense, np.nan)
    columns = {
        "multiply-adds, masked": arrays["cost/flops"],
        "multiply-adds, compact": measured.get(f"{PREFIX}compact_flops", nothing)
        / arrays["cost/flops_total"][:, None, None, None],
        "latency, masked": measured.get(f"{PREFIX}masked_ratio", nothing),
        "latency, compact": measured.get(f"{PREFIX}compact_ratio", nothing),
    }
    tables = [spread(np.swapaxes(values, 1, 2)) for values in columns.values()]
    rows = [
        (style.plain, f"{ratio:.4g}", *(of_spread(table, (at, method)) for table in tables))
        for method, style in enumerate(styles)
        for at, ratio in enumerate(arrays["axes/keep_ratio"])
        if not style.nominal and np.isfinite(dense[:, at, :, method]).any()
    ]
    caption = _CAPTION.format(
        batch=int(np.nanmax(measured[f"{PREFIX}batch"])),
        threads=int(np.nanmax(measured[f"{PREFIX}threads"])),
        dense=1e3 * float(np.nanmedian(dense)),
    )
    return Table("Latency beside multiply-adds", caption, ("method", "keep ratio", *columns), rows, name="latency")
