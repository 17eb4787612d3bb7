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
from luigi_prune.report.captioned_plots import curve_plots, layer_plots, main_plots, other_plots
from luigi_prune.report.cells import Table
from luigi_prune.report.chart_axes import chart_axes
from luigi_prune.report.chart_data import chart_data
from luigi_prune.report.compute_table import behind_level, compute_table
from luigi_prune.report.curves import measured_metric, within
from luigi_prune.report.figures import Plot
from luigi_prune.report.glance import cost_sentences, glance_table
from luigi_prune.report.latency_table import latency_table
from luigi_prune.report.layer_tables import layer_tables
from luigi_prune.report.panels import chosen_ratios
from luigi_prune.report.result_flags import all_results_table, chance_of, flags
from luigi_prune.report.shift_tables import agreement_table, excess_of, excess_plot, excess_table
from luigi_prune.report.style import MethodStyle
from luigi_prune.report.verdict_card import Card, make_card

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
    cost: list[str]
    main: list[Plot]  # of the first test set and metric
    tradeoffs: list[Plot]  # all others
    glance: Table | None
    leaderboard: Table | None
    pairs: list[Table]
    test_sets: Table | None
    before_after: Table | None
    side_effects: Table | None
    excess: Table | None
    excess_lines: Plot | None
    agreement: Table | None
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
        excess = [self.excess_lines] if self.excess_lines else []
        return [*self.main, *self.tradeoffs, *excess, *self.layers, *self.curves]

    @property
    def changes(self) -> list[Table]:
        """Tables of quality before retraining, and of other changes."""
        return [table for table in (self.before_after, self.agreement, self.side_effects) if table is not None]

    @property
    def tables(self) -> list[Table]:
        """All tables that are files of their own, in display order."""
        robust = (self.test_sets, self.excess)
        single = (self.glance, self.leaderboard, *self.pairs, *robust, *self.changes, *self.layer_tables)
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
    behind = behind_level(arrays, measured, meta, found) if found else {}
    card = make_card(arrays, meta, styles, found, first)
    axes = chart_axes(arrays, measured, meta)
    nominal, excess = excess_of(arrays, meta, labels[0])
    family = report_tables.family_table(costs) if costs and len(costs["family/name"]) else None
    splits = ("validation", "test") if has_validation(arrays) else ("test",)
    wrong = flags(arrays, meta, first, labels[0], chance_of(labels[0], settings or {}))
    trial = card.facts == [] and found is not None  # random samples: numbers are shown, but nobody wins
    return Contents(
        title=f"{meta['network']} on {meta['dataset_train']}: {meta['experiment']}",
        notice=wording.partial_notice(arrays, meta, styles),
        setting=wording.setting(arrays, meta, styles),
        card=card,
        cost=[] if trial else cost_sentences(behind, costs, styles),
        main=main_plots(arrays, meta, styles, qualities, shown, standing, found),
        tradeoffs=other_plots(arrays, meta, styles, qualities, shown),
        glance=glance_table(pairs, styles, quality) if pairs and not trial else None,
        leaderboard=standing_tables.leaderboard_table(standing, found, styles, quality) if found else None,
        pairs=[standing_tables.pairwise_table(each, styles, quality) for each in pairs],
        test_sets=standing_tables.potential_table(arrays, verdicts, styles) if found and len(verdicts) > 1 else None,
        before_after=standing_tables.before_after_table(arrays, found, styles, quality) if found else None,
        side_effects=standing_tables.side_effects_table(standing, found, styles) if found else None,
        excess=excess_table(nominal, excess, found.order, styles, quality) if found else None,
        excess_lines=excess_plot(nominal, excess, found.order, styles, quality) if found else None,
        agreement=agreement_table(arrays, found, styles) if found else None,
        layer_tables=layer_tables(arrays, styles, ratios),
        layers=layer_plots(arrays, meta, styles, ratios),
        costs=[
            table
            for table in (
                compute_table(behind, standing, found, styles, quality, settings or {}) if found else None,
                latency_table(arrays, measured, styles) if measured else None,
                report_tables.measured_table(measured, styles) if measured else None,
                family,
            )
            if table is not None
        ],
        curves=curve_plots(arrays, meta, styles, ratios),
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
        chart=chart_data(arrays, styles, qualities, shown, *((found.order, found.tied) if found else ((), ())), axes),
        verdict=found,
        standing=standing,
    )


def _pairs(arrays: Arrays, test_set: str, metric: str, lower: bool) -> list[Pairwise]:
    """Return the comparisons at the compressions that two methods or more have."""
    found = [pairwise(arrays, test_set, metric, compression, lower) for compression in COMPARED_AT]
    return [each for each in found if len(each.methods) > 1 and np.isfinite(each.difference).any()]
