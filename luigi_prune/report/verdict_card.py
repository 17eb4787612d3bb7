"""The verdict in words: a headline, sentences, facts, and whether the comparison is fit to decide by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luigi_prune.analysis.completeness import Evaluated, evaluated, missing_and_expected
from luigi_prune.analysis.statistics import SOUND_NUMBER_OF_NETS, first_known, spread
from luigi_prune.analysis.verdict import Verdict
from luigi_prune.registry.dataset_families import SYNTHETIC
from luigi_prune.report.cells import factor, limits, number, points
from luigi_prune.report.curves import in_percent
from luigi_prune.report.style import MethodStyle
from luigi_prune.report.wording import counted

Arrays = dict[str, np.ndarray]

MOST_NAMED = 5


@dataclass(frozen=True)
class Card:
    """`light` is "good" (fit to decide), "warn" or "" if nothing was compared."""

    headline: str
    sentences: list[str]
    light: str
    decision: str
    reasons: list[str]
    facts: list[tuple[str, str]]


def make_card(
    arrays: Arrays,
    meta: dict[str, Any],
    styles: Sequence[MethodStyle],
    found: Verdict | None,
    test_set: str,
) -> Card:
    """Return the card of an experiment; `found` is the verdict on `test_set` and the first metric, if there is one."""
    unpruned = unpruned_sentence(arrays, meta, test_set)
    if str(meta["dataset_train"]).startswith(SYNTHETIC):
        headline = "A trial run on random samples: no number here compares the methods."
        return Card(headline, [unpruned] * bool(unpruned), "", "", [], [])
    if found is None:
        return Card(unpruned or "No results yet.", [], "", "", [], [])
    return Card(
        headline=headline_of(found, styles),
        sentences=[*_lead_sentences(found, styles), *([unpruned] if unpruned else [])],
        light="good" if found.fit_to_decide else "warn",
        decision=_decision(found),
        reasons=[readable_reason(reason, styles) for reason in found.reasons],
        facts=_facts(found, evaluated(arrays, meta)),
    )


def _decision(found: Verdict) -> str:
    if not found.fit_to_decide:
        return "Not enough to decide by"
    return "Fit to decide by" if found.leader is not None else "A sound comparison, and no method is shown to be best"


def headline_of(found: Verdict, styles: Sequence[MethodStyle]) -> str:
    """Return which method leads, or that none does."""
    if all(not value.reached for value in found.compression.values()):
        return f"No method stays within {level_text(found)} of the unpruned network at any ratio."
    if found.leader is not None:
        return f"{styles[found.leader].plain} leads."
    if len(found.order) == 1:
        return f"Only {styles[found.order[0]].plain} was compared."
    return f"No method clearly leads: {named([styles[method].plain for method in found.tied])}."


def level_text(found: Verdict, level: float | None = None) -> str:
    """Return a level in words: `1 point of validation TopK1`."""
    value = points(found.level if level is None else level)
    if found.lower:
        return f"{value} % of {found.chosen_on} {found.metric}"
    unit = ("point" if value == "1" else "points") if found.is_share else "hundredths"
    return f"{value} {unit} of {found.chosen_on} {found.metric}"


def named(names: Sequence[str]) -> str:
    """Return a list of names, shortened if it is long."""
    more = len(names) - MOST_NAMED
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:MOST_NAMED])} and {more} more"


def _lead_sentences(found: Verdict, styles: Sequence[MethodStyle]) -> list[str]:
    best, text = found.order[0], []
    value = found.compression[best]
    if value.reached:
        interval = limits(value.low, value.high)
        bound = {"≥": "at least ", "<": "less than ", "≈": "about "}.get(value.sign, "")
        share = f"{bound}{factor(value.value)}" + (f" (95 % interval {interval})" if interval else "")
        what = "reaches" if found.leader is not None or len(found.order) == 1 else "has the largest mean compression,"
        text.append(
            f"{styles[best].plain} {what} {share} within {level_text(found)}; "
            f"{value.reached} of {counted(value.of, 'run')} stayed within it."
        )
    if found.lead_factor is not None and value.reached:
        mean, low, high = found.lead_factor
        paired = f", 95 % interval {low:.2f} to {high:.2f}" if np.isfinite(low) else ""
        times = "as much" if f"{mean:.2f}" == "1.00" else f"{mean:.2f} times as much"
        text.append(
            f"That is {times} as the next, {styles[found.order[1]].plain} (paired by net, in steps of the "
            f"ratios{paired})."
        )
    if found.changes:
        levels: dict[str, list[str]] = {}
        for other in found.changes:
            levels.setdefault(styles[other.order[0]].plain, []).append(points(other.level))
        parts = [f"{name} at {' and '.join(at)}" for name, at in levels.items()]
        text.append(f"The order depends on the level: first is {', '.join(parts)}{'' if found.lower else ' points'}.")
    return text


def _facts(found: Verdict, sets: Sequence[Evaluated]) -> list[tuple[str, str]]:
    unknown, several = found.resolution is None, len(sets) > 1
    judged = [each for each in sets if each.test_set == found.test_set]
    facts = [
        ("level", level_text(found)),
        (f"one {found.chosen_on} sample", "unknown" if unknown else f"{100 * (found.resolution or 0):.2g} points"),
        (f"networks ({SOUND_NUMBER_OF_NETS} can decide)", str(found.nets)),
        *(("results" + f" on {each.test_set}" * several, f"{each.there:,} of {each.expected:,}") for each in judged),
    ]
    if several:
        missing, expected = missing_and_expected(sets)
        facts.append((f"results on all {len(sets)} test sets", f"{expected - missing:,} of {expected:,}"))
    return facts


def readable_reason(reason: str, styles: Sequence[MethodStyle]) -> str:
    """Return a reason with labels for the names of methods."""
    labels = {style.method: style.plain for style in styles}
    names = "|".join(re.escape(name) for name in sorted(labels, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{names})(?!\w)", lambda found: labels[found[0]], reason)


def unpruned_sentence(arrays: Arrays, meta: dict[str, Any], test_set: str) -> str:
    """Return the quality of the unpruned network, or nothing if it is not known."""
    metric = str(arrays["axes/metric"][0])
    values = arrays[f"test/{test_set}/{metric}"]
    reference = spread(first_known(values[..., 0])[:, None])
    if not np.isfinite(reference.mean):
        return ""
    percent = in_percent(arrays, metric, values)
    mean = number(float(reference.mean), float(reference.std), 100.0 if percent else 1.0, 2 if percent else 4)
    return f"The unpruned {meta['network']} has a {metric} of {mean}{' %' * percent} on the test set {test_set}."
