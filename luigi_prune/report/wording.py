"""The text of a report: findings, facts, definitions and warnings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from luigi_prune.analysis.commensurate import Commensurate, lower_is_better
from luigi_prune.analysis.comparison import Ranking
from luigi_prune.analysis.statistics import SOUND_NUMBER_OF_NETS, first_known, spread
from luigi_prune.registry.dataset_families import SYNTHETIC
from luigi_prune.report.figures import in_percent, is_share
from luigi_prune.report.report_tables import number, points, unit_of
from luigi_prune.report.style import MethodStyle

Arrays = dict[str, np.ndarray]

MODES = {
    "retrain": "one-shot: each ratio is pruned from the unpruned network, then retrained",
    "cascade": "iterative: each ratio is pruned from the retrained network of the ratio before it",
    "cascade-rewind": "iterative with weight rewinding: after each pruning the kept weights return to an early epoch "
    "of training",
    "train": "training of the unpruned networks only; nothing is pruned",
}
METRICS = {
    "IoU": "mean intersection over union of predicted and true regions",
    "F1": "harmonic mean of precision and recall",
    "MCorr": "Matthews correlation coefficient, in [-1, 1]",
    "Pearson": "Pearson correlation of prediction and target, in [-1, 1]",
    "NLLPrior": "mean log-likelihood in nats per sample",
    "NLLNats": "mean log-likelihood in nats per sample",
    "NLLBits": "minus the mean number of bits per dimension",
    "SpearmanRank": "Spearman rank correlation of prediction and target, in [-1, 1]",
}


def findings(
    arrays: Arrays,
    meta: dict[str, Any],
    styles: Sequence[MethodStyle],
    main: tuple[Commensurate, Ranking] | None,
    test_set: str,
) -> list[str]:
    """Return the findings of the experiment in a few sentences, the most important first."""
    metric = str(arrays["axes/metric"][0])
    values = arrays[f"test/{test_set}/{metric}"]
    reference = spread(first_known(values[..., 0])[:, None])
    mean = number(float(reference.mean), float(reference.std), 100.0) + " %"
    percent = in_percent(arrays, metric, values)
    if not percent:
        mean = number(float(reference.mean), float(reference.std), digits=4)
    known = np.isfinite(reference.mean)
    unpruned = f"The unpruned {meta['network']} has a {metric} of {mean} on the test set {test_set}." if known else ""
    if str(meta["dataset_train"]).startswith(SYNTHETIC):
        return [
            "A trial run on random samples: no number here compares the methods.",
            *([unpruned] if unpruned else []),
        ]
    if main is None:
        return [unpruned] if unpruned else ["No results yet."]
    return [*_winner(*main, styles, metric, percent), *([unpruned] if unpruned else [])]


def _winner(
    chosen: Commensurate, ranking: Ranking, styles: Sequence[MethodStyle], metric: str, percent: bool
) -> list[str]:
    """Return the method that prunes most, its change on the test set, and its lead over the next."""
    best, at = ranking.order[0], chosen.at(ranking.level)
    judge = f"{chosen.chosen_on} {metric}"
    if not chosen.reached[at, list(ranking.order)].any():
        return [
            f"No method stays within {points(ranking.level)} {unit_of(chosen)} of the unpruned network's {judge} at "
            "any ratio."
        ]
    share = number(float(ranking.pruned.mean[best]), float(ranking.pruned.std[best]), 100.0, 1)
    runs = f"{chosen.reached[at, best]} of {chosen.total[best]} runs"
    change = spread(chosen.metric_changes[metric][at, ..., best])
    moved = number(float(change.mean), float(change.std), 100.0 if percent else 1.0, sign=True) + " points" * percent
    text = [
        f"{styles[best].plain} prunes most: {share} % of the parameters, while {judge} stays within "
        f"{points(ranking.level)} {unit_of(chosen)} of the unpruned network's ({runs}).",
    ]
    if chosen.chosen_on == "validation":
        text.append(f"At these ratios {metric} on the test set {chosen.test_set} changes by {moved}.")
    if ranking.lead is not None:
        lead = ranking.lead
        caution = (
            f"; indicative only, with {int(lead.n_independent)} of {SOUND_NUMBER_OF_NETS} independent networks"
            if lead.indicative
            else ""
        )
        behind = number(float(lead.mean), float(lead.std), 100.0, 1)
        text.append(
            f"Next is {styles[ranking.order[1]].plain}, {behind} points of parameters behind (paired by run{caution})."
        )
    return text


def counted(n: int, noun: str) -> str:
    """Return `n` and the noun, in the plural unless there is one."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def facts(arrays: Arrays, meta: dict[str, Any], styles: Sequence[MethodStyle]) -> list[tuple[str, str]]:
    """Return the settings of the experiment as pairs of name and value."""
    ratios = arrays["axes/keep_ratio"]
    nets, repetitions = len(arrays["axes/net"]), len(arrays["axes/repetition"])
    epochs = meta.get("retraining_epochs")
    size, flops = (float(spread(arrays[f"cost/{name}_total"][:, None]).mean) for name in ("size", "flops"))
    pairs = [
        ("network", str(meta["network"])),
        ("trained on", str(meta["dataset_train"])),
        ("tested on", ", ".join(str(name) for name in arrays["axes/test_set"])),
        ("parameters", f"{size:,.0f}" if np.isfinite(size) else "unknown"),
        ("multiply-adds", f"{flops:,.0f}" if np.isfinite(flops) else "unknown"),
        ("mode", f"{meta['mode']} ({MODES.get(meta['mode'], 'see settings')})"),
    ]
    if len(styles) > 1:
        pairs += [
            ("methods", "; ".join(style.plain for style in styles[1:])),
            ("keep ratios", f"{len(ratios)}, from {ratios.max():.4g} to {ratios.min():.4g}"),
        ]
        if epochs:
            trained = (
                "none"
                if epochs[0] >= epochs[1]
                else f"epochs {epochs[0]} to {epochs[1]} of its schedule after each pruning"
            )
            pairs.append(("retraining", trained))
    repeated = f" × {counted(repetitions, 'repetition')} of pruning" if len(styles) > 1 else ""
    pairs.append(("runs", f"{counted(nets, 'independently trained net')}{repeated}"))
    return pairs


def definitions(arrays: Arrays, meta: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the terms of the report with their definitions."""
    terms = [
        (
            "Pruned parameters",
            "one minus the kept entries of the pruned network over those of the unpruned one, counted over all "
            "parameters: weights, biases and BatchNorm. They are masked or factorised; files and memory "
            "need not shrink by as much.",
        ),
        (
            "Pruned FLOPs",
            "the same for multiply-adds of one sample through every convolution and linear layer, without those of "
            "pruned weights. A theoretical number, not a measured time.",
        ),
        (
            "Keep ratio",
            "one minus the share of parameters that a method was asked to prune; the plots and tables show the "
            "achieved share.",
        ),
    ]
    for metric in arrays["axes/metric"]:
        lower = lower_is_better(arrays, str(metric))
        terms.append((str(metric), metric_meaning(str(metric)) + f". {'Lower' if lower else 'Higher'} is better."))
    lower = lower_is_better(arrays, str(arrays["axes/metric"][0]))
    judge = arrays[f"validation/{arrays['axes/metric'][0]}"]
    points_of = "percentage points" if not np.isfinite(judge).any() or is_share(judge) else "hundredths"
    change = "rise, in percent," if lower else f"drop, in {points_of},"
    terms += [
        ("Loss", "mean loss over the test set, of the kind named in the settings. Lower is better."),
        ("Unpruned network", "the trained network before pruning; the horizontal dashed line in the plots."),
        (
            "Commensurate level",
            f"how much {arrays['axes/metric'][0]} may {change} against the unpruned network of the "
            "same run; at each level the smallest network of each run is taken. Chosen on validation: by the metric "
            "on data outside the test set, so the reported test values are unbiased. Chosen on test: as in torchprune; "
            "a little optimistic.",
        ),
        (
            "±, n and bands",
            "sample standard deviation (divisor n − 1) over n runs: nets trained from different seeds, times "
            "repetitions of pruning on the same net. Thin lines in plots are single runs, or their range if there "
            f"are many. A difference on fewer than {SOUND_NUMBER_OF_NETS} nets is called indicative.",
        ),
        ("Mode", f"{meta['mode']}: {MODES.get(meta['mode'], 'see settings')}."),
    ]
    stops = meta.get("early_stop_epochs")
    if stops:
        terms.append(
            (
                "Early stopping",
                f"from epoch {stops[0]} (training) and {stops[1]} (retraining) on, the best validation epoch is kept.",
            )
        )
    return terms


def metric_meaning(label: str) -> str:
    """Return the meaning of a metric."""
    top = re.match(r"TopK(\d+)$", label)
    if top:
        k = int(top.group(1))
        return (
            "share of samples whose true class is the network's first guess"
            if k == 1
            else f"share of samples whose true class is among the {k} likeliest"
        )
    for name, meaning in METRICS.items():
        if label.startswith(name):
            return meaning
    return "as named in the settings"


def partial_notice(meta: dict[str, Any]) -> str | None:
    """Return the warning for a report with missing results, or None."""
    if not meta.get("partial"):
        return None
    total = meta["cells_per_test_set"]
    missing = ", ".join(f"{count} of {total} on {test_set}" for test_set, count in meta["missing"].items() if count)
    return f"PARTIAL: results are missing ({missing}). Means are over the available results and may change."
