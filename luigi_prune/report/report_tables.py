"""Tables of a report as text cells, shared by the Markdown report and the HTML page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luigi_prune.analysis.commensurate import Commensurate, unit_of
from luigi_prune.analysis.comparison import COMPRESSIONS, Check, at_compression
from luigi_prune.analysis.statistics import spread
from luigi_prune.report.cells import NOTHING, Table, number, of_spread, points
from luigi_prune.report.curves import in_percent, without_copies
from luigi_prune.report.latency_table import PREFIX
from luigi_prune.report.style import MethodStyle

Arrays = dict[str, np.ndarray]


def by_run_levels(values: np.ndarray) -> np.ndarray:
    """Return (level, net, repetition, method) as (net, repetition, level, method)."""
    return np.moveaxis(values, 0, 2)


def level_tables(arrays: Arrays, chosen: Commensurate, styles: Sequence[MethodStyle]) -> list[Table]:
    """Return one table per commensurate level: size and test results of each method's chosen networks."""
    size_total, flops_total = (float(spread(arrays[f"cost/{name}_total"][:, None]).mean) for name in ("size", "flops"))
    spreads = {name: spread(by_run_levels(getattr(chosen, name))) for name in ("size", "flops", "loss")}
    metrics = {name: spread(by_run_levels(values)) for name, values in chosen.metrics.items()}
    changes = {name: spread(by_run_levels(values)) for name, values in chosen.metric_changes.items()}
    shares = {name: in_percent(arrays, name, arrays[f"test/{chosen.test_set}/{name}"]) for name in metrics}
    columns = ["method", "runs", "parameters pruned (%)", "FLOPs pruned (%)", "parameters kept", "multiply-adds kept"]
    for name in metrics:
        unit = " (%)" if shares[name] else ""
        columns += [f"{name}{unit}", f"change of {name}{' (points)' if unit else ''}"]
    tables = []
    for at, level in enumerate(chosen.levels):
        rows = []
        for method, style in enumerate(styles):
            if style.nominal:
                continue
            place = (at, method)
            size, flops = float(spreads["size"].mean[place]), float(spreads["flops"].mean[place])
            cells = [style.plain, f"{chosen.reached[place]} of {chosen.total[method]}"]
            cells += [
                number(1 - value, float(spreads[name].std[place]), 100, 1)
                for name, value in (("size", size), ("flops", flops))
            ]
            cells += [
                f"{value:,.0f}" if np.isfinite(value) else NOTHING for value in (size * size_total, flops * flops_total)
            ]
            for name in metrics:
                scale = 100.0 if shares[name] else 1.0
                cells += [of_spread(metrics[name], place, scale), of_spread(changes[name], place, scale, sign=True)]
            rows.append((*cells, of_spread(spreads["loss"], place, digits=4)))
        unit = unit_of(chosen)
        better = f"at least {points(-level)} {unit} better" if level < 0 else f"at most {points(level)} {unit} worse"
        title = f"Level {100 * level:+g} %" if level else "Level 0 %"
        tables.append(
            Table(
                title,
                f"Error {better} than the unpruned network's. Means over the runs that reach it.",
                (*columns, "loss"),
                rows,
            )
        )
    return tables


def compression_table(arrays: Arrays, test_set: str, label: str, styles: Sequence[MethodStyle]) -> Table:
    """Return a metric or the loss at 2, 4, 8, 16 and 32 times fewer parameters."""
    table = spread(by_run_levels(at_compression(arrays, test_set, label)))
    scale = 100.0 if in_percent(arrays, label, arrays[f"test/{test_set}/{label}"]) else 1.0
    digits = 4 if label == "loss" else 2
    rows = [
        (style.plain, *(of_spread(table, (at, method), scale, digits) for at in range(len(COMPRESSIONS))))
        for method, style in enumerate(styles)
        if not style.nominal and np.isfinite(table.mean[:, method]).any()
    ]
    unit = " (%)" if scale == 100.0 else ""
    caption = (
        f"Test {label}{unit} with that many times fewer parameters. Interpolated for each run between "
        "its two nearest achieved sizes (linearly in the logarithm); a dash if no network is that small: nothing is "
        "extrapolated."
    )
    return Table(
        f"{label[:1].upper() + label[1:]} at fixed compression",
        caption,
        ("method", *(f"{value:g}×" for value in COMPRESSIONS)),
        rows,
        name=f"compression-{label}",
        matrix=True,
    )


def measured_table(measured: Arrays, styles: Sequence[MethodStyle]) -> Table:
    """Return the measured cost (seconds, bytes) per method, but not what has a table of its own."""
    names = sorted(name for name in measured if "gpu_seconds" not in name and not name.startswith(PREFIX))
    tables = {name: spread(without_copies(measured[name]).reshape(-1, 1, len(styles))) for name in names}
    scales = {name: 1e-6 if "bytes" in name else 1.0 for name in names}
    rows = [
        (style.plain, *(of_spread(tables[name], at, scales[name], 1 if "bytes" in name else 3) for name in names))
        for at, style in enumerate(styles)
        if any(tables[name].n[at] for name in names)
    ]
    caption = (
        "Mean ± sample standard deviation over all runs and ratios. Depends on the machine; differs from run to run."
    )
    return Table("Measured cost", caption, ("method", *(measured_name(name) for name in names)), rows, name="measured")


def measured_name(name: str) -> str:
    """Return the title of a measured column with its unit: `prune_peak_bytes` becomes `prune peak (MB)`."""
    for word, unit in (("bytes", "MB"), ("seconds", "s")):
        if word in name:
            rest = " ".join(name.replace(word, " ").replace("_", " ").replace("/", " ").split())
            return f"{rest} ({unit})" if rest else f"{word} ({unit})"
    return name.replace("_", " ")


def family_table(costs: Arrays) -> Table:
    """Return the cost of the tasks of each family; `costs` are the arrays of `analysis.costs.family_costs`."""
    rows: list[tuple[str, ...]] = []
    for at, name in enumerate(costs["family/name"]):
        tasks, gpu_tasks = int(costs["family/tasks"][at]), int(costs["family/gpu_tasks"][at])
        seconds = float(costs["family/seconds"][at])
        hours = number(float(costs["family/gpu_seconds"][at]) / 3600) if gpu_tasks else "unknown"
        if 0 < gpu_tasks < tasks:
            hours += f" ({gpu_tasks} of {tasks} tasks)"
        peak = number(float(costs["family/peak_bytes"][at]), scale=1e-6, digits=0)
        rows.append((str(name), str(tasks), number(seconds / tasks), number(seconds, digits=1), hours, peak))
    caption = (
        "Every task counts once. Seconds within the task, from its last start; GPU-hours: these times the GPUs of its "
        "job; peak memory: the largest process of the family, without GPU memory."
    )
    columns = ("family", "tasks", "mean (s)", "total (s)", "GPU-hours", "peak memory (MB)")
    return Table("Cost per family of tasks", caption, columns, rows, name="families")


def check_table(checks: Sequence[Check]) -> Table:
    """Return the checklist of a sound comparison."""
    rows: list[tuple[str, ...]] = [(check.question, "yes" if check.met else "no", check.remark) for check in checks]
    caption = (
        "What a comparison of pruning methods should report (after Blalock et al. 2020), and whether this one does."
    )
    return Table("How sound is this comparison?", caption, ("item", "here", "remark"), rows, name="checks")
