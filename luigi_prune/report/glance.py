"""The first answers of a report: which method at which compression, whether that is significant, what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from luigi_prune.analysis.costs import TotalSeconds
from luigi_prune.analysis.verdict import Pairwise
from luigi_prune.report.cells import NOTHING, Cell, Table, duration, limits, number
from luigi_prune.report.curves import Quality
from luigi_prune.report.style import MethodStyle
from luigi_prune.report.verdict_card import named

Arrays = dict[str, np.ndarray]

SIGNIFICANT = 0.05


def glance_table(comparisons: Sequence[Pairwise], styles: Sequence[MethodStyle], quality: Quality) -> Table:
    """Return, per compression, the method of the best mean, whether that is significant, and those not shown worse."""
    rows = []
    for found in comparisons:
        known = np.isfinite(found.difference)
        if not known.any():
            continue
        # A method's mean difference from the others that it can be compared with is the largest for the best mean.
        sums = np.nan_to_num(found.difference).sum(axis=1) * (-1 if quality.lower else 1)
        means = np.where(known.any(axis=1), sums / np.maximum(known.sum(axis=1), 1), -np.inf)
        best = int(means.argmax())
        worse = found.high[:, best] < 0 if not quality.lower else found.low[:, best] > 0
        level = [method for at, method in enumerate(found.methods) if at != best and not worse[at]]
        text = named([styles[method].plain for method in level]) or "none"
        name = Cell(styles[found.methods[best]].plain, method=found.methods[best])
        rows.append((f"{found.compression:g}×", name, _significance(found, best, means, level, styles, quality), text))
    nets = max((int(found.nets.max(initial=0)) for found in comparisons), default=0)
    never = 2.0 / 2**nets > SIGNIFICANT if nets else False
    caption = (
        "Best mean on the test set at so many times fewer parameters, its lead over the next that may be as good, and "
        "all methods that paired 95 % intervals do not show to be worse. Yes: the permutation test, adjusted for all "
        "pairs, agrees; indicative: only the intervals do"
        + (f", {nets} nets cannot give p ≤ {SIGNIFICANT:g}." if never else ".")
    )
    return Table(
        "Which method at which compression?",
        caption,
        ("compression", "best mean", "significant?", "not shown worse"),
        rows or [(NOTHING, NOTHING, NOTHING, NOTHING)],
        name="glance",
    )


def _significance(
    found: Pairwise,
    best: int,
    means: np.ndarray,
    level: Sequence[int],
    styles: Sequence[MethodStyle],
    quality: Quality,
) -> Cell:
    """Return whether the best method beats all others, with its lead over the next one."""
    others = [at for at in range(len(found.methods)) if at != best and np.isfinite(found.difference[best, at])]
    if not others:
        return Cell(NOTHING)
    following = max([at for at in others if found.methods[at] in level] or others, key=lambda at: means[at])
    lead, low, high = (
        quality.scale * float(part[best, following]) for part in (found.difference, found.low, found.high)
    )
    interval = limits(low, high, "{:+.1f}")
    note = f"{number(lead, digits=1, sign=True)} over {styles[found.methods[following]].plain}"
    note += f" ({interval})" if interval else ""
    p = float(np.nan_to_num(found.adjusted[best, others], nan=1.0).max())
    word = "no" if level else f"yes, p {p:.2g}" if p <= SIGNIFICANT else "indicative"
    return Cell(word, note, tone="good" if word.startswith("yes") else "")


def cost_sentences(
    behind: Mapping[int, TotalSeconds], costs: Arrays | None, styles: Sequence[MethodStyle]
) -> list[str]:
    """Return what a network costs beyond training, from the cheapest method to the dearest, and the whole experiment.

    `behind` has the seconds behind the methods' networks at the level of the verdict, `costs` the families of tasks.
    """
    beyond = {method: float(cost.pruning + cost.retraining) for method, cost in behind.items()}
    beyond = {method: seconds for method, seconds in beyond.items() if np.isfinite(seconds)}
    text = []
    if beyond:
        cheapest, dearest = min(beyond, key=beyond.__getitem__), max(beyond, key=beyond.__getitem__)
        least, most = duration(beyond[cheapest]), duration(beyond[dearest])
        training = duration(float(np.mean([behind[method].training for method in beyond])))
        span = f"{least} ({styles[cheapest].plain}) to {most} ({styles[dearest].plain})" if least != most else least
        text.append(f"To prune and retrain one network: {span}, after {training} of training.")
    if costs and len(costs.get("family/name", ())):
        tasks, seconds = int(costs["family/tasks"].sum()), float(costs["family/seconds"].sum())
        hours = float(costs["family/gpu_seconds"].sum()) / 3600
        gpu = f", {hours:.3g} GPU-hours" if hours else ""
        text.append(f"The whole experiment: {tasks:,} tasks, {duration(seconds)}{gpu}.")
    return text
