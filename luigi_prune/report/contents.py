"""Contents of a report, in order: figures and tables, built once and rendered as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luigi_prune.analysis.commensurate import Commensurate, choose, has_validation
from luigi_prune.analysis.comparison import Ranking, checklist, rank
from luigi_prune.report import report_tables, wording
from luigi_prune.report.figures import COSTS, Plot, prunability_figure, quality_figure, within
from luigi_prune.report.panels import chosen_ratios, curve_figure, layer_figure
from luigi_prune.report.report_tables import SUMMARY_LEVELS, Table
from luigi_prune.report.style import MethodStyle

Arrays = dict[str, np.ndarray]

# The drop at which methods are ranked: half a percentage point, as in the tables of ALDS and PFP.
RANKING_LEVEL = 0.005


@dataclass(frozen=True)
class ResultSection:
    """Figures and tables of one test set."""

    test_set: str
    quality: list[tuple[str, list[Plot]]]  # label of the metric, its plots
    compression: list[Table]
    levels: dict[str, list[Table]]  # by the data that networks were chosen on: "validation", "test"
    all_results: Table


@dataclass(frozen=True)
class Contents:
    """A complete report before rendering."""

    title: str
    notice: str | None
    findings: list[str]
    facts: list[tuple[str, str]]
    summaries: list[Table]
    prunability: list[Plot]
    results: list[ResultSection]
    layers: list[Plot]
    curves: list[Plot]
    potential: Table | None
    measured: Table | None
    costs: Table | None
    checks: Table
    definitions: list[tuple[str, str]]

    @property
    def plots(self) -> list[Plot]:
        """All figures, in display order."""
        quality = [plot for result in self.results for _, plots in result.quality for plot in plots]
        return [*self.prunability, *quality, *self.layers, *self.curves]


def make_contents(
    arrays: Arrays,
    measured: Arrays,
    meta: dict[str, Any],
    styles: Sequence[MethodStyle],
    plotting: dict[str, float],
    provenance: dict[str, Any],
    costs: Arrays | None = None,
) -> Contents:
    """Return the contents of the report on these tables; figures and tables without data are left out.

    `measured` has one array over the cells per measurement, `costs` the arrays of `analysis.costs.family_costs`.
    """
    test_sets = [str(name) for name in arrays["axes/test_set"]]
    metric = str(arrays["axes/metric"][0])
    pruning = any(not style.nominal for style in styles)
    chosen = {name: _choices(arrays, name) for name in test_sets} if pruning else {}
    summaries: list[Table] = []
    prunability: list[Plot] = []
    main: tuple[Commensurate, Ranking] | None = None
    for test_set in test_sets if pruning else []:
        first = next(iter(chosen[test_set].values()))
        ranking = rank(first, arrays["method/nominal"], RANKING_LEVEL)
        if not ranking.order:
            continue
        main = main or (first, ranking)
        summaries += [
            report_tables.summary_table(table, ranking, styles, metric) for table in chosen[test_set].values()
        ]
        figure = prunability_figure(
            first, styles, ranking.order, SUMMARY_LEVELS, f"{meta['network']}, tested on {test_set}"
        )
        caption = (
            f"Largest share of parameters pruned while {first.chosen_on} {metric} stays within the drop; a run that "
            "does so nowhere counts as 0. Whiskers: sample standard deviation; dots: runs."
        )
        prunability.append(Plot(f"{test_set}/prunability", f"Prunability on {test_set}", caption, figure))
    by_test = {name: choices["test"] for name, choices in chosen.items()}
    return Contents(
        title=f"{meta['network']} on {meta['dataset_train']}: {meta['experiment']}",
        notice=wording.partial_notice(meta),
        findings=wording.findings(arrays, meta, styles, main, test_sets[0]),
        facts=wording.facts(arrays, meta, styles),
        summaries=summaries,
        prunability=prunability,
        results=[_result_section(arrays, name, styles, plotting, meta, chosen.get(name, {})) for name in test_sets],
        layers=_layer_plots(arrays, meta, styles, plotting),
        curves=_curve_plots(arrays, meta, styles, plotting),
        potential=report_tables.potential_table(arrays, by_test, styles, RANKING_LEVEL) if len(by_test) > 1 else None,
        measured=report_tables.measured_table(measured, styles) if measured else None,
        costs=report_tables.family_table(costs) if costs and len(costs["family/name"]) else None,
        checks=report_tables.check_table(checklist(arrays, measured, meta, provenance)),
        definitions=wording.definitions(arrays, meta),
    )


def _choices(arrays: Arrays, test_set: str) -> dict[str, Commensurate]:
    """Return the commensurate networks chosen on validation, if there are validation results, and on the test set."""
    splits = ("validation", "test") if has_validation(arrays) else ("test",)
    return {split: choose(arrays, test_set, split) for split in splits}


def sentence(text: str) -> str:
    """Return `text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def _result_section(
    arrays: Arrays,
    test_set: str,
    styles: Sequence[MethodStyle],
    plotting: dict[str, float],
    meta: dict[str, Any],
    chosen: dict[str, Commensurate],
) -> ResultSection:
    labels = [*(str(metric) for metric in arrays["axes/metric"]), "loss"]
    title = f"{meta['network']}, tested on {test_set}"
    quality = []
    for label in labels if len(styles) > 1 and np.isfinite(arrays[f"test/{test_set}/loss"][..., 1:]).any() else []:
        plots = []
        for cost, (_, cost_label) in COSTS.items():
            figure = quality_figure(arrays, styles, test_set, label, cost, plotting, title)
            plots.append(
                Plot(
                    f"{test_set}/{label}_{cost}",
                    f"{sentence(label)} against {cost_label}",
                    _quality_caption(arrays, label, cost, meta),
                    figure,
                )
            )
        quality.append((label, plots))
    return ResultSection(
        test_set=test_set,
        quality=quality,
        compression=[
            table
            for label in labels
            if (table := report_tables.compression_table(arrays, test_set, label, styles)).rows
        ],
        levels={split: report_tables.level_tables(arrays, choice, styles) for split, choice in chosen.items()},
        all_results=report_tables.result_table(arrays, test_set, styles),
    )


def _quality_caption(arrays: Arrays, label: str, cost: str, meta: dict[str, Any]) -> str:
    meaning = "mean loss" if label == "loss" else wording.metric_meaning(label)
    share = (
        "share of all parameters (biases and BatchNorm included) that are zero or removed"
        if cost == "parameters"
        else "share of multiply-adds saved in theory, over every convolution and linear layer"
    )
    nets, repetitions = len(arrays["axes/net"]), len(arrays["axes/repetition"])
    controls = (
        " Dashed with markers: a control, which prunes nothing and is drawn at its keep ratio."
        if arrays["method/nominal"][1:].any()
        else ""
    )
    epochs = meta.get("retraining_epochs")
    retrained = (
        f", retrained in epochs {epochs[0]} to {epochs[1]}" if epochs and epochs[0] < epochs[1] else ", not retrained"
    )
    return (
        f"Vertical: test {label} ({meaning}). Horizontal: {share}. Mean over {wording.counted(nets, 'net')} × "
        f"{wording.counted(repetitions, 'repetition')}; band: sample standard deviation; thin: single runs, or their "
        f"range. Dashed: the unpruned network. Triangles at the lower edge: values below the axis.{controls} Mode "
        f"{meta['mode']}{retrained}."
    )


def _layer_plots(
    arrays: Arrays, meta: dict[str, Any], styles: Sequence[MethodStyle], plotting: dict[str, float]
) -> list[Plot]:
    pruned = ~arrays["method/nominal"]
    if not len(arrays["axes/layer"]) or not np.isfinite(arrays["layers/kept"][..., pruned, :]).any():
        return []
    ratios = chosen_ratios(arrays["axes/keep_ratio"], within(arrays["axes/keep_ratio"], plotting))
    title = f"{meta['network']} trained on {meta['dataset_train']}"
    budget = "The share of all kept weights that each compressible layer holds. Grey: the unpruned network."
    share = "The pruned share of each compressible layer. A method that prunes all layers equally is a horizontal line."
    tail = " Mean over nets and repetitions; band: sample standard deviation; shades: target keep ratio."
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
    arrays: Arrays, meta: dict[str, Any], styles: Sequence[MethodStyle], plotting: dict[str, float]
) -> list[Plot]:
    ratios = chosen_ratios(arrays["axes/keep_ratio"], within(arrays["axes/keep_ratio"], plotting))
    plots = []
    for label in ["loss", *(str(metric) for metric in arrays["axes/metric"])]:
        figure = curve_figure(arrays, styles, ratios, label, f"{meta['network']} trained on {meta['dataset_train']}")
        if figure is not None:
            caption = (
                f"{sentence(label)} per epoch while training and retraining. Solid: validation split; dotted: training "
                "data. Mean over nets and repetitions; band: sample standard deviation."
            )
            plots.append(Plot(f"training_curves_{label}", f"Training curves: {label}", caption, figure))
    return plots
