"""Tables of how methods stand: leaderboard, who beats whom, test sets, before and after retraining."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luigi_prune.analysis.censoring import Censored, censored, runs_at_level
from luigi_prune.analysis.commensurate import choose
from luigi_prune.analysis.inference import mean_interval, over_nets
from luigi_prune.analysis.leaderboard import LeaderboardRow, change_before_retraining
from luigi_prune.analysis.verdict import Pairwise, Verdict
from luigi_prune.report.cells import NOTHING, Cell, Table, limits, number, of_censored, of_interval, points
from luigi_prune.report.curves import Quality
from luigi_prune.report.style import MethodStyle
from luigi_prune.report.verdict_card import level_text
from luigi_prune.report.wording import counted

Arrays = dict[str, np.ndarray]

MOST_RATIOS = 6
MOST_LEVELS = 4


def leaderboard_table(
    rows: Sequence[LeaderboardRow], found: Verdict, styles: Sequence[MethodStyle], quality: Quality
) -> Table:
    """Return the leaderboard, the best mean compression first; ties with the best are marked."""
    levels = list(rows[0].compression)[:MOST_LEVELS] if rows else []
    times = {"prune (s)": [row.prune_seconds for row in rows], "retrain (s)": [row.retrain_seconds for row in rows]}
    times = {name: values for name, values in times.items() if np.isfinite(values).any()}
    with_before = any(row.before is not None for row in rows)
    unit = f" ({quality.unit})" if quality.unit else ""
    at, word = points(found.level), "rise" if found.lower else "drop"
    columns = [
        "method",
        *(f"{word} ≤ {points(level)}" for level in levels),
        f"FLOPs at {at}",
        f"test change{', before → after retraining,' * with_before} at {at}{unit}",
    ]
    columns += [f"curve mean{unit}", *times]
    body = []
    for place, row in enumerate(rows):
        cells: list[str] = [Cell(styles[row.method].plain, method=row.method)]
        cells += [of_censored(row.compression[level]) for level in levels]
        cells += [of_censored(row.flops), _change(row, quality)]
        cells += [of_interval(row.area, quality.scale), *(seconds(values[place]) for values in times.values())]
        body.append(tuple(cells))
    tied = [at for at, row in enumerate(rows) if row.tied]
    caption = (
        f"Original over kept parameters of the smallest network within so many {found.unit} of "
        f"the unpruned network's {found.chosen_on} {found.metric}; geometric mean over nets, 95 % interval, and how "
        "many runs stay within the level. ≥: the smallest ratio is still within it; <: some run is so at no ratio, and "
        "enters with its largest network; ≈: both. Curve mean: the mean change over log2 compression, up to what all "
        f"methods have. Shaded: not shown worse than the best at {at}."
    )
    return Table("Leaderboard", caption, tuple(columns), body, name="leaderboard", marked=frozenset(tied))


def _change(row: LeaderboardRow, quality: Quality) -> Cell:
    """Return the change after retraining, behind the one before if that was measured."""
    after = of_interval(row.change, quality.scale)
    if row.before is None:
        return after
    before = number(row.before.mean, scale=quality.scale, digits=1, sign=True)
    return Cell(f"{before} → {after}", after.note, order=after.order)


def side_effects_table(rows: Sequence[LeaderboardRow], found: Verdict, styles: Sequence[MethodStyle]) -> Table | None:
    """Return what the leaderboard's networks change beside the metric; None if nothing of it was measured."""
    if all(row.calibration_error is None and row.worst_class is None for row in rows):
        return None
    body = []
    for row in rows:
        error, worst = row.calibration_error, row.worst_class
        cells: list[str] = [Cell(styles[row.method].plain, method=row.method)]
        cells.append(NOTHING if error is None else of_interval(error, 100.0))
        cells.append(
            NOTHING
            if worst is None
            else Cell(f"class {worst[0]}: {number(worst[1], scale=100.0, sign=True)}", order=100.0 * worst[1])
        )
        body.append(tuple(cells))
    caption = (
        f"On the test set {found.test_set}, of the networks that the leaderboard has at {points(found.level)} "
        f"{found.unit}, against the unpruned network: expected calibration error, with its 95 % "
        "interval (positive: worse calibrated), and the class that loses most accuracy, in points."
    )
    columns = ("method", "calibration error (points)", "worst class (points)")
    return Table("What else changes", caption, columns, body, name="side-effects")


def seconds(value: float) -> Cell:
    """Return a time in seconds with three digits."""
    return Cell(f"{value:.3g}" if np.isfinite(value) else NOTHING, order=value)


def pairwise_table(found: Pairwise, styles: Sequence[MethodStyle], quality: Quality) -> Table:
    """Return who beats whom at one compression: the row minus the column, shaded if that is significant."""
    names = [styles[method].plain for method in found.methods]
    rows = []
    for at, method in enumerate(found.methods):
        cells: list[str] = [Cell(names[at], method=method)]
        for other in range(len(names)):
            if other == at:
                cells.append("")
                continue
            p, better = found.adjusted[at, other], found.better[at, other]
            text = number(float(found.difference[at, other]), scale=quality.scale, digits=1, sign=True)
            tone = {1: "good", -1: "bad"}.get(int(better), "")
            low, high = (quality.scale * float(limit[at, other]) for limit in (found.low, found.high))
            notes = [limits(low, high, "{:+.1f}"), f"p {p:.2g}" if p < 1 else ""]  # NaN is not less
            cells.append(Cell(text, "; ".join(note for note in notes if note), tone=tone))
        rows.append(tuple(cells))
    nets = int(found.nets.max(initial=0))
    smallest = 2.0 / 2**nets if nets > 1 else 1.0
    caution = (
        f" Indicative: with {counted(nets, 'net')} no p-value can be below {smallest:.2g}, before Holm's adjustment."
        if found.indicative or smallest > 0.05
        else ""
    )
    unit = f" in {quality.unit}" if quality.unit else ""
    caption = (
        f"Row minus column, test {quality.label}{unit}, at {found.compression:g} times fewer parameters: mean over "
        "nets, each pair on the same trained network, with its 95 % interval. p (if below 1): sign-flip permutation "
        f"test, adjusted by Holm for all pairs; coloured if at most 0.05.{caution}"
    )
    return Table(
        f"Who beats whom at {found.compression:g}×",
        caption,
        ("row − column", *names),
        rows,
        name=f"pairs-{found.compression:g}x",
        matrix=True,
    )


def potential_table(arrays: Arrays, verdicts: dict[str, Verdict], styles: Sequence[MethodStyle]) -> Table:
    """Return the prune potential on every test set: the compression within the level, judged on that test set."""
    main = next(iter(verdicts.values()))
    columns, values = [], {}
    for test_set in verdicts:
        chosen = choose(arrays, test_set, "test", metric=main.metric)
        runs = runs_at_level(chosen, arrays, main.level)
        columns.append(test_set)
        values[test_set] = {method: censored(runs, arrays["cost/size"], method) for method in main.order}
    highest = max((np.log2(v.value) for row in values.values() for v in row.values() if v.reached), default=1.0)
    body: list[tuple[str, ...]] = []
    for method in main.order:
        cells: list[str] = [Cell(styles[method].plain, method=method)]
        for test_set in verdicts:
            value = values[test_set][method]
            depth = np.log2(value.value) / highest if value.reached and highest > 0 else 0.0
            shown = of_censored(value)
            cells.append(Cell(str(shown), f"{value.reached} of {value.of}", shade=float(depth), order=shown.order))
        body.append(tuple(cells))
    leads = [found.leader for found in verdicts.values()]
    body.append(("clear leader", *("none" if leader is None else styles[leader].plain for leader in leads)))
    caption = (
        f"Prune potential (Liebenwein et al. 2021, arXiv 2103.03014): the compression within {points(main.level)} "
        f"{main.unit} of the unpruned network on the same test set, chosen on that test set; "
        "geometric mean over nets, and how many runs stay within. Signs as in the leaderboard."
    )
    return Table("Robustness over test sets", caption, ("method", *columns), body, name="test-sets", matrix=True)


def before_after_table(arrays: Arrays, found: Verdict, styles: Sequence[MethodStyle], quality: Quality) -> Table | None:
    """Return the change right after pruning and after retraining per ratio; None if the former was not measured."""
    before = change_before_retraining(arrays, found.test_set, found.metric)
    if before is None:
        return None
    places = np.unique(np.linspace(0, before.shape[1] - 1, min(MOST_RATIOS, before.shape[1])).round().astype(int))
    body = []
    for method in found.order:
        cells: list[str] = [Cell(styles[method].plain, method=method)]
        for ratio in places:
            mean = mean_interval(over_nets(before[:, ratio, :, method])).mean
            first = number(mean, scale=quality.scale, digits=1, sign=True)
            after = number(float(quality.change.mean[ratio, method]), scale=quality.scale, digits=1, sign=True)
            cells.append(Cell(f"{first} → {after}"))
        body.append(tuple(cells))
    caption = (
        f"Change of test {quality.label}{f' in {quality.unit}' if quality.unit else ''} right after pruning → after "
        "retraining, mean over nets. How much is lost at pruning says little about what retraining restores."
    )
    columns = ("method", *(f"keep {arrays['axes/keep_ratio'][ratio]:.3g}" for ratio in places))
    return Table("Before and after retraining", caption, columns, body, name="before-after", matrix=True)


def every_level_table(
    arrays: Arrays, found: Verdict, styles: Sequence[MethodStyle], split: str, levels: Sequence[float]
) -> Table:
    """Return the compression of every method at every level, with networks chosen on `split`."""
    chosen = choose(arrays, found.test_set, split, metric=found.metric)
    runs = {level: runs_at_level(chosen, arrays, level) for level in levels}
    body = [
        (
            Cell(styles[method].plain, method=method),
            *(_short(censored(runs[level], arrays["cost/size"], method)) for level in levels),
        )
        for method in found.order
    ]
    unit = found.unit
    caption = (
        f"Compression within each level ({unit} of {split} {found.metric}; negative: better than the unpruned "
        "network), "
        f"and how many runs stay within. Levels finer than {level_text(found)} are less than two samples."
    )
    title = f"Every level, chosen on {split}" + (
        " as torchprune does, which is a little optimistic" * (split == "test")
    )
    columns = ("method", *(f"{100 * level:+g}" if level else "0" for level in levels))
    return Table(title, caption, columns, body, name=f"levels-{split}", matrix=True)


def _short(value: Censored) -> Cell:
    shown = of_censored(value)
    return Cell(str(shown), shown.note.rpartition("; ")[2], order=shown.order)
