"""The text of a report: setting, definitions and warnings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from luigi_prune.analysis.commensurate import lower_is_better
from luigi_prune.analysis.completeness import evaluated, missing_and_expected
from luigi_prune.analysis.statistics import SOUND_NUMBER_OF_NETS, spread
from luigi_prune.report.curves import is_share
from luigi_prune.report.style import MethodStyle

Arrays = dict[str, np.ndarray]

MODES = {
    "retrain": "one-shot: each ratio is pruned from the unpruned network, then retrained",
    "cascade": "iterative: each ratio is pruned from the retrained network of the ratio before it",
    "cascade-rewind": "iterative with weight rewinding: after each pruning the kept weights return to an early epoch "
    "of training",
    "train": "training of the unpruned networks only; nothing is pruned",
}
# Test sets with missing results that a notice lists.
MOST_SETS = 6
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
            ("keep ratios", f"{len(ratios)}, from {_span(ratios)}" if len(ratios) > 1 else f"{ratios[0]:.4g}"),
        ]
        pairs += [("retraining", retrained_text(epochs))] if epochs else []
    repeated = f" × {counted(repetitions, 'repetition')} of pruning" if len(styles) > 1 else ""
    pairs.append(("runs", f"{counted(nets, 'independently trained net')}{repeated}"))
    return pairs


def _span(values: np.ndarray) -> str:
    return f"{values.max():.4g} to {values.min():.4g}"


def retrained_text(epochs: Sequence[int]) -> str:
    """Return the epochs of the schedule that retraining runs, counted from 1; `epochs` is [first, end), from 0."""
    first, last = epochs[0] + 1, epochs[1]
    if first > last:
        return "none"
    which = f"epoch {last}" if first == last else f"epochs {first} to {last}"
    return f"{which} of the training's schedule, after each pruning"


def setting(arrays: Arrays, meta: dict[str, Any], styles: Sequence[MethodStyle]) -> str:
    """Return the setting of the experiment in one line."""
    pairs = dict(facts(arrays, meta, styles))
    parts = [f"{pairs['network']} on {pairs['trained on']}", f"{pairs['parameters']} parameters", pairs["runs"]]
    if len(styles) > 1:
        ratios = arrays["axes/keep_ratio"]
        at = f"{len(ratios)} keep ratios from {_span(ratios)}" if len(ratios) > 1 else f"keep ratio {ratios[0]:.4g}"
        parts += [f"{counted(len(styles) - 1, 'method')} at {at}"]
        parts += [f"mode {meta['mode']}", f"retraining: {pairs.get('retraining', 'unknown')}"]
    return "; ".join(parts) + "."


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
        (
            "Unpruned network",
            "the trained network before pruning; the horizontal dashed line in the plots, at a change of 0.",
        ),
        (
            "Commensurate level",
            f"how much {arrays['axes/metric'][0]} may {change} against the unpruned network of the "
            "same run; at each level the smallest network of each run is taken. Chosen on validation: by the metric "
            "on data outside the test set, so the reported test values are unbiased. Chosen on test: as in torchprune; "
            "a little optimistic.",
        ),
        (
            "±, n and bands",
            "± is the sample standard deviation (divisor n − 1) over n runs: nets trained from different seeds, times "
            "repetitions of pruning on the same net. Intervals and bands are 95 % confidence intervals over nets "
            "(Student's t), because repetitions share their net; there are none for a single run. "
            f"A difference on fewer than {SOUND_NUMBER_OF_NETS} nets is called indicative.",
        ),
        ("Mode", f"{meta['mode']}: {MODES.get(meta['mode'], 'see settings')}."),
    ]
    if text := early_stopping(meta):
        terms.append(("Early stopping", text))
    return terms


def early_stopping(meta: dict[str, Any]) -> str:
    """Return from which epoch on the best one is kept; nothing if that is the end of the schedule, so never."""
    stops, epochs = meta.get("early_stop_epochs"), meta.get("retraining_epochs")
    if not stops:
        return ""
    names = [
        f"{name} epoch {stop + 1}"
        for name, stop in zip(("training", "retraining"), stops, strict=True)
        if epochs is None or stop < epochs[1]
    ]
    return f"from {' and '.join(names)} on, the best epoch by validation is kept." if names else ""


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


def partial_notice(arrays: Arrays, meta: dict[str, Any], styles: Sequence[MethodStyle]) -> str | None:
    """Return the warning for a report with missing results, which names the test sets and methods, or None."""
    if not meta.get("partial"):
        return None
    sets = evaluated(arrays, meta)
    missing, expected = missing_and_expected(sets)
    lacking, complete = [each for each in sets if each.missing], [each.test_set for each in sets if not each.missing]
    parts = []
    for each in lacking[:MOST_SETS]:
        every = len(each.lacking) == len(styles)
        who = "" if every else f" ({', '.join(styles[method].plain for method in each.lacking)})"
        count = f"{each.missing} of {each.expected}" if each.there else f"all {each.expected}"
        parts.append(f"{count} on {each.test_set}{who}")
    if len(lacking) > MOST_SETS:
        parts.append(f"some on {counted(len(lacking) - MOST_SETS, 'other test set')}")
    if complete:
        parts.append(f"{', '.join(complete)} {'is' if len(complete) == 1 else 'are'} complete")
    return (
        f"PARTIAL: {missing} of {expected} evaluations are missing: {'; '.join(parts)}. Means are over the available "
        "results and may change."
    )
