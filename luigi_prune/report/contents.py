"""Contents of a report, in order: figures and tables, built once and rendered as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from luigi_prune.analysis.commensurate import LEVELS, choose, has_validation
from luigi_prune.analysis.comparison import checklist
from luigi_prune.analysis.leaderboard import LeaderboardRow, leaderboard
from luigi_prune.analysis.verdict import Pairwise, Verdict, pairwise, verdict
from luigi_prune.report import report_tables, standing_tables, wording
from luigi_prune.report.cells import Table, points
from luigi_prune.report.chart_data import chart_data
from luigi_prune.report.curves import Quality, curves, measured_metric, within
from luigi_prune.report.figures import COSTS, Plot, standing_figure, tradeoff_figure
from luigi_prune.report.latency_table import latency_table
from luigi_prune.report.layer_tables import layer_tables
from luigi_prune.report.panels import chosen_ratios, curve_figure, layer_figure
from luigi_prune.report.result_flags import all_results_table, chance_of, flags
from luigi_prune.report.style import MethodStyle
from luigi_prune.report.verdict_card import Card, glance_table, make_card

Arrays = dict[str, np.ndarray]

# Compressions at which pairs of methods are compared.
COMPARED_AT = (2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class Contents:
    """A complete report before rendering."""

    title: str
    notice: str | None
    setting: str
    card: Card
    main: list[Plot]  # of the first test set and metric
    tradeoffs: list[Plot]  # all others
    glance: Table | None
    leaderboard: Table | None
    pairs: list[Table]
    test_sets: Table | None
    before_after: Table | None
    layer_tables: list[Table]
    layers: list[Plot]
    costs: list[Table]
    curves: list[Plot]
    all_results: Table
    compression: list[Table]
    every_level: list[Table]
    levels: dict[str, dict[str, list[Table]]]  # by test set and by the data that networks were chosen on
    checks: Table
    definitions: list[tuple[str, str]]
    facts: list[tuple[str, str]]
    chart: dict[str, Any]
    verdict: Verdict | None
    standing: list[LeaderboardRow] = field(default_factory=list)

    @property
    def plots(self) -> list[Plot]:
        """All figures, in display order."""
        return [*self.main, *self.tradeoffs, *self.layers, *self.curves]

    @property
    def tables(self) -> list[Table]:
        """All tables that are files of their own, in display order."""
        single = (self.glance, self.leaderboard, *self.pairs, self.test_sets, self.before_after, *self.layer_tables)
        tables = [*single, *self.costs, self.all_results, *self.every_level, *self.compression, self.checks]
        return [table for table in tables if table is not None]


def make_contents(
    arrays: Arrays,
    measured: Arrays,
    meta: dict[str, Any],
    styles: Sequence[MethodStyle],
    plotting: dict[str, float],
    provenance: dict[str, Any],
    costs: Arrays | None = None,
    settings: dict[str, Any] | None = None,
) -> Contents:
    """Return the contents of the report on these tables; figures and tables without data are left out.

    `measured` has one array over the cells per measurement, `costs` the arrays of `analysis.costs.family_costs`.
    """
    test_sets = [str(name) for name in arrays["axes/test_set"]]
    labels = [*(str(metric) for metric in arrays["axes/metric"]), "loss"]
    qualities = {name: [measured_metric(arrays, name, label) for label in labels] for name in test_sets}
    first, quality = test_sets[0], qualities[test_sets[0]][0]
    verdicts = {name: each for name in test_sets if (each := verdict(arrays, meta, name, labels[0])) is not None}
    found = verdicts.get(first)
    standing = leaderboard(arrays, measured, found) if found else []
    shown = within(arrays["axes/keep_ratio"], plotting)
    ratios = chosen_ratios(arrays["axes/keep_ratio"], shown)
    pairs = _pairs(arrays, first, labels[0], quality.lower) if found and len(found.order) > 1 else []
    card = make_card(arrays, meta, styles, found, first)
    family = report_tables.family_table(costs) if costs and len(costs["family/name"]) else None
    splits = ("validation", "test") if has_validation(arrays) else ("test",)
    wrong = flags(arrays, first, labels[0], chance_of(labels[0], settings or {}))
    trial = card.facts == [] and found is not None  # random samples: numbers are shown, but nobody wins
    return Contents(
        title=f"{meta['network']} on {meta['dataset_train']}: {meta['experiment']}",
        notice=wording.partial_notice(meta),
        setting=wording.setting(arrays, meta, styles),
        card=card,
        main=_main_plots(arrays, meta, styles, qualities, shown, standing, found),
        tradeoffs=_other_plots(arrays, meta, styles, qualities, shown),
        glance=glance_table(pairs, styles, quality.lower) if pairs and not trial else None,
        leaderboard=standing_tables.leaderboard_table(standing, found, styles, quality) if found else None,
        pairs=[standing_tables.pairwise_table(each, styles, quality) for each in pairs],
        test_sets=standing_tables.potential_table(arrays, verdicts, styles) if found and len(verdicts) > 1 else None,
        before_after=standing_tables.before_after_table(arrays, found, styles, quality) if found else None,
        layer_tables=layer_tables(arrays, styles, ratios),
        layers=_layer_plots(arrays, meta, styles, ratios),
        costs=[
            table
            for table in (
                latency_table(arrays, measured, styles) if measured else None,
                report_tables.measured_table(measured, styles) if measured else None,
                family,
            )
            if table is not None
        ],
        curves=_curve_plots(arrays, meta, styles, ratios),
        all_results=all_results_table(arrays, styles, qualities[first], wrong, first),
        compression=[
            table
            for label in labels
            if found and (table := report_tables.compression_table(arrays, first, label, styles)).rows
        ],
        every_level=[
            standing_tables.every_level_table(arrays, found, styles, split, LEVELS) for split in splits if found
        ],
        levels={
            name: {split: report_tables.level_tables(arrays, choose(arrays, name, split), styles) for split in splits}
            for name in verdicts
        },
        checks=report_tables.check_table(checklist(arrays, measured, meta, provenance)),
        definitions=wording.definitions(arrays, meta),
        facts=wording.facts(arrays, meta, styles),
        chart=chart_data(arrays, styles, qualities, shown, found.order if found else ()),
        verdict=found,
        standing=standing,
    )


def _pairs(arrays: Arrays, test_set: str, metric: str, lower: bool) -> list[Pairwise]:
    """Return the comparisons at the compressions that two methods or more have."""
    found = [pairwise(arrays, test_set, metric, compression, lower) for compression in COMPARED_AT]
    return [each for each in found if len(each.methods) > 1 and np.isfinite(each.difference).any()]


def sentence(text: str) -> str:
    """Return `text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def _main_plots(
    arrays: Arrays,
    meta: dict[str, Any],
    styles: Sequence[MethodStyle],
    qualities: dict[str, list[Quality]],
    shown: np.ndarray,
    standing: Sequence[LeaderboardRow],
    found: Verdict | None,
) -> list[Plot]:
    """Return the figures of the first test set and metric: change against compression, compression at levels."""
    first = next(iter(qualities))
    plots = [
        plot
        for cost in COSTS
        if (plot := _tradeoff(arrays, meta, styles, first, qualities[first][0], shown, cost)) is not None
    ]
    if found and any(row.compression[found.level].reached for row in standing):
        levels = list(standing[0].compression)[:3]
        unit = "%" if found.lower else "points"
        label = f"at a {'rise' if found.lower else 'drop'} of {', '.join(points(level) for level in levels)} {unit}"
        caption = (
            f"Compression of parameters within each level of {found.chosen_on} {found.metric}; geometric mean and 95 % "
            "interval over nets. A caret to the right: at least so much; to the left: less than that."
        )
        figure = standing_figure(standing, styles, levels, label, f"{meta['network']}, tested on {first}")
        plots.append(Plot(f"{first}/compression_at_levels", f"Compression at levels on {first}", caption, figure))
    return plots


def _other_plots(
    arrays: Arrays,
    meta: dict[str, Any],
    styles: Sequence[MethodStyle],
    qualities: dict[str, list[Quality]],
    shown: np.ndarray,
) -> list[Plot]:
    """Return change against compression for the other metrics of the first test set, and the first of the others."""
    first, *others = qualities
    wanted = [(first, quality) for quality in qualities[first][1:]] + [(name, qualities[name][0]) for name in others]
    plots = [_tradeoff(arrays, meta, styles, name, quality, shown, "parameters") for name, quality in wanted]
    return [plot for plot in plots if plot is not None]


def _tradeoff(
    arrays: Arrays,
    meta: dict[str, Any],
    styles: Sequence[MethodStyle],
    test_set: str,
    quality: Quality,
    shown: np.ndarray,
    cost: str,
) -> Plot | None:
    source, cost_label = COSTS[cost]
    made = curves(arrays, quality, source, shown)
    if not made:
        return None
    figure = tradeoff_figure(made, styles, quality, cost, f"{meta['network']}, tested on {test_set}")
    title = f"{sentence(quality.label)} on {test_set} against compression of {cost_label}"
    return Plot(f"{test_set}/{quality.label}_{cost}", title, _caption(arrays, meta, made, quality, cost), figure)


def _caption(arrays: Arrays, meta: dict[str, Any], made: Sequence[Any], quality: Quality, cost: str) -> str:
    """Return what the figure shows, and only that: bands, the zone and controls are mentioned if they are there."""
    meaning = "mean loss" if quality.label == "loss" else wording.metric_meaning(quality.label)
    share = (
        "all parameters (biases and BatchNorm included) over those that are kept"
        if cost == "parameters"
        else "multiply-adds over those that remain, in theory, over every convolution and linear layer"
    )
    runs = f"{wording.counted(len(arrays['axes/net']), 'net')} × " + wording.counted(
        len(arrays["axes/repetition"]), "repetition"
    )
    parts = [
        f"Vertical: change of test {quality.label} ({meaning}) against the unpruned network of the same run"
        + (f", in {quality.unit}" if quality.unit else "")
        + (". Lower is better; the axis is turned." if quality.lower else "."),
        f"Horizontal: {share}; logarithmic. Mean over {runs}.",
        "Bands: 95 % confidence intervals over nets." * any(np.isfinite(curve.low).any() for curve in made),
        "Grey zone: one test sample more or less." * (quality.zone is not None),
        "Dotted: a control, which prunes nothing and is drawn at its keep ratio."
        * bool(arrays["method/nominal"][[curve.method for curve in made]].any()),
        f"Mode {meta['mode']}.",
    ]
    return " ".join(part for part in parts if part)


def _layer_plots(
    arrays: Arrays, meta: dict[str, Any], styles: Sequence[MethodStyle], ratios: Sequence[int]
) -> list[Plot]:
    pruned = ~arrays["method/nominal"]
    if not len(arrays["axes/layer"]) or not np.isfinite(arrays["layers/kept"][..., pruned, :]).any():
        return []
    title = f"{meta['network']} trained on {meta['dataset_train']}"
    budget = "The share of all kept weights that each compressible layer holds. Grey: the unpruned network."
    share = "The pruned share of each compressible layer. A method that prunes all layers equally is a horizontal line."
    tail = f" Mean over nets and repetitions{_band(arrays)}; shades: target keep ratio."
    return [
        Plot(
            "budget_per_layer", "Budget per layer", budget + tail, layer_figure(arrays, styles, ratios, "budget", title)
        ),
        Plot(
            "prune_ratio_per_layer",
            "Prune ratio per layer",
            share + tail,
            layer_figure(arrays, styles, ratios, "pruned", title),
        ),
    ]


def _curve_plots(
    arrays: Arrays, meta: dict[str, Any], styles: Sequence[MethodStyle], ratios: Sequence[int]
) -> list[Plot]:
    plots = []
    for label in ["loss", *(str(metric) for metric in arrays["axes/metric"])]:
        figure = curve_figure(arrays, styles, ratios, label, f"{meta['network']} trained on {meta['dataset_train']}")
        if figure is not None:
            caption = (
                f"{sentence(label)} per epoch while training and retraining. {_lines(arrays, label)} Mean over nets "
                f"and repetitions{_band(arrays)}."
            )
            plots.append(Plot(f"training_curves_{label}", f"Training curves: {label}", caption, figure))
    return plots


def _band(arrays: Arrays) -> str:
    runs = len(arrays["axes/net"]) * len(arrays["axes/repetition"])
    return "; band: sample standard deviation" if runs > 1 else ""


def _lines(arrays: Arrays, label: str) -> str:
    """Return what the lines of the training curves are, as far as there are such curves."""
    suffix = {"train": "train_loss", "validation": "validation_loss"}
    names = suffix if label == "loss" else {split: f"{split}/{label}" for split in suffix}
    has = {split: np.isfinite(arrays[f"curves/{name}"]).any() for split, name in names.items()}
    return " ".join(
        ["Solid: validation split."] * bool(has["validation"]) + ["Dotted: training data."] * bool(has["train"])
    )
