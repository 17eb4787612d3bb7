"""Tables of a report as text cells, shared by the Markdown report and the HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from luigi_prune.analysis.commensurate import Commensurate
from luigi_prune.analysis.comparison import COMPRESSIONS, Check, Ranking, at_compression, paired_change, prune_potential
from luigi_prune.analysis.statistics import Spread, by_run, spread
from luigi_prune.report.figures import in_percent
from luigi_prune.report.style import MethodStyle

Arrays = dict[str, np.ndarray]

# Drops of the first metric at which prunability is summarised; ALDS and PFP are compared at 0.5 points.
SUMMARY_LEVELS = (0.0, 0.005, 0.01, 0.02)
NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows; `caption` is self-contained."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    note: str = ""


def number(mean: float, std: float = float("nan"), scale: float = 1.0, digits: int = 2, sign: bool = False) -> str:
    """Return `mean ± std`, without `std` if it is not finite (a single run), or a dash if `mean` is not."""
    if not np.isfinite(mean):
        return NOTHING
    text = f"{scale * mean:{'+' if sign else ''}.{digits}f}"
    return text + (f" ± {scale * std:.{digits}f}" if np.isfinite(std) else "")


def of_spread(table: Spread, at: tuple[int, ...] | int, scale: float = 1.0, digits: int = 2, sign: bool = False) -> str:
    """Return one entry of a spread as `mean ± std`."""
    return number(float(table.mean[at]), float(table.std[at]), scale, digits, sign)


def points(level: float) -> str:
    """Return a level as a drop in percentage points: 0.005 is `0.5`."""
    return f"{100 * level:g}"


def unit_of(chosen: Commensurate) -> str:
    """Return what levels are counted in.

    Percentage points of a metric, percent of one of which less is better, or hundredths of one that is no share.
    """
    return "%" if chosen.lower else "points" if chosen.is_share else "hundredths"


def summary_table(chosen: Commensurate, ranking: Ranking, styles: Sequence[MethodStyle], metric: str) -> Table:
    """Return the largest share of parameters pruned within each drop of the first metric, best method first."""
    pruned = spread(by_run_levels(chosen.pruned))
    flops = np.where(chosen.points >= 0, 1.0 - chosen.flops, np.where(chosen.available, 0.0, np.nan))
    unit = unit_of(chosen)
    level, scale = chosen.at(ranking.level), 100.0 if unit == "points" else 1.0
    change_column = f"test {metric} change at {points(ranking.level)} " + ("(points)" if unit == "points" else unit)
    flops_spread = spread(flops[level])
    change = spread(chosen.metric_changes[metric][level])
    rows = []
    for method in ranking.order:
        cells = [styles[method].plain]
        for drop in SUMMARY_LEVELS:
            at, n, total = chosen.at(drop), int(chosen.reached[chosen.at(drop), method]), int(chosen.total[method])
            cells.append(of_spread(pruned, (at, method), 100.0, 1) + f" ({n} of {total})")
        cells += [of_spread(flops_spread, method, 100.0, 1), of_spread(change, method, scale, 2, sign=True)]
        rows.append(tuple(cells))
    caption = (
        f"Largest share of parameters pruned (%) while {chosen.chosen_on} {metric} stays within so many {unit} of the "
        "unpruned network's. In brackets: runs that reach the drop at all; a run that does not stays unpruned and "
        f"counts as 0. Last column: the change on the test set {chosen.test_set}, at the ratios so chosen."
    )
    word = "rise" if chosen.lower else "drop"
    columns = ("method", *(f"{word} ≤ {points(drop)} {unit}" for drop in SUMMARY_LEVELS))
    note = f"tested on {chosen.test_set}, chosen on {chosen.chosen_on}"
    return Table(
        "Prunability", caption, (*columns, f"FLOPs pruned at {points(ranking.level)} (%)", change_column), rows, note
    )


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
    )


def result_table(arrays: Arrays, test_set: str, styles: Sequence[MethodStyle]) -> Table:
    """Return every method at every keep ratio: achieved sizes, metrics, paired change against the unpruned network."""
    labels = [*(str(metric) for metric in arrays["axes/metric"]), "loss"]
    size, flops = (spread(by_run(1.0 - arrays[name])) for name in ("cost/size", "cost/flops"))
    values = {label: spread(by_run(without_copies(arrays[f"test/{test_set}/{label}"]))) for label in labels}
    change = spread(by_run(paired_change(arrays, test_set, labels[0])))
    scales = {
        label: 100.0 if in_percent(arrays, label, arrays[f"test/{test_set}/{label}"]) else 1.0 for label in labels
    }
    rows = []
    for method, style in enumerate(styles):
        for ratio, keep_ratio in enumerate(arrays["axes/keep_ratio"]):
            place, first = (ratio, method), labels[0]
            if method == 0 and ratio > 0:
                continue  # the unpruned network is the same at every ratio
            costs = ["0.0", "0.0"] if method == 0 else [of_spread(table, place, 100, 2) for table in (size, flops)]
            cells = [style.plain, NOTHING if method == 0 else f"{keep_ratio:.4g}", *costs]
            cells += [of_spread(values[label], place, scales[label], 4 if label == "loss" else 2) for label in labels]
            low, high = scales[first] * float(change.low[place]), scales[first] * float(change.high[place])
            interval = f" [{low:+.2f}, {high:+.2f}]" if np.isfinite(low) and method else ""
            cells += [
                of_spread(change, place, scales[first], sign=True) + interval if method else NOTHING,
                str(int(values[first].n[place])),
            ]
            rows.append(tuple(cells))
    units = [label + (" (%)" if scales[label] == 100.0 else "") for label in labels]
    columns = (
        "method",
        "keep ratio",
        "parameters pruned (%)",
        "FLOPs pruned (%)",
        *units,
        f"change of {labels[0]} [95 % CI]",
        "n",
    )
    caption = (
        "Mean ± sample standard deviation over nets and repetitions (n runs). The change is paired: each run against "
        "its own unpruned network; the confidence interval is Student's t over the nets."
    )
    return Table("All results", caption, columns, rows)


def without_copies(values: np.ndarray) -> np.ndarray:
    """Return `values` (net, ratio, repetition, method) with NaN for copies of unpruned results, which are no runs."""
    out = values.copy()
    out[:, 1:, :, 0] = np.nan
    out[:, :, 1:, 0] = np.nan
    return out


def potential_table(
    arrays: Arrays, tables: dict[str, Commensurate], styles: Sequence[MethodStyle], level: float
) -> Table:
    """Return the prune potential of every method on every test set, with its smallest value and mean over them."""
    potential = prune_potential(arrays, tables, level)
    means = np.array([table.mean for table in potential.values()])
    rows = []
    for method, style in enumerate(styles):
        if style.nominal or not np.isfinite(means[:, method]).any():
            continue
        cells = [of_spread(table, method, 100, 1) for table in potential.values()]
        known = means[:, method][np.isfinite(means[:, method])]
        rows.append(
            (style.plain, *cells, number(known.min(), scale=100, digits=1), number(known.mean(), scale=100, digits=1))
        )
    unit = unit_of(next(iter(tables.values())))
    caption = f"Share of parameters (%) pruned at a drop of at most {points(level)} {unit}, per test set."
    return Table("Prune potential per test set", caption, ("method", *potential, "smallest", "mean"), rows)


def measured_table(measured: Arrays, styles: Sequence[MethodStyle]) -> Table:
    """Return the measured cost (seconds, bytes) per method."""
    names = sorted(name for name in measured if "gpu_seconds" not in name)  # shown per task family
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
    return Table("Measured cost", caption, ("method", *(measured_name(name) for name in names)), rows)


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
    return Table("Cost per family of tasks", caption, columns, rows)


def check_table(checks: Sequence[Check]) -> Table:
    """Return the checklist of a sound comparison."""
    rows: list[tuple[str, ...]] = [(check.question, "yes" if check.met else "no", check.remark) for check in checks]
    caption = (
        "What a comparison of pruning methods should report (after Blalock et al. 2020), and whether this one does."
    )
    return Table("How sound is this comparison?", caption, ("item", "here", "remark"), rows)
