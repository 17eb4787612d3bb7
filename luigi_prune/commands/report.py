"""`report CONFIG...`: write reports from the results that exist, and one over several experiments."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from luigi_prune.analysis.completeness import evaluated, missing_and_expected
from luigi_prune.commands.plan import reports_of
from luigi_prune.errors import ConfigError, DamagedResult, LuigiPruneError, nearest
from luigi_prune.identity.spec import shown_methods
from luigi_prune.results.hdf5_file import Result, read_result
from luigi_prune.results.provenance import provenance
from luigi_prune.workflow.tasks import Report

log = logging.getLogger("luigi_prune")

PARTIAL = "report-partial"  # folder of a report with missing results, beside the tables'


class _Tables(NamedTuple):
    """The tables of one experiment, whole or from the evaluations that exist, and where its report lies."""

    task: Report
    arrays: dict[str, Any]
    measured: dict[str, Any]
    meta: dict[str, Any]
    page: Path | None


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("report", help="write the report from the results that exist, at any time")
    parser.add_argument("config", nargs="+", help="experiment files; several, or sweeps, are compared")
    parser.add_argument("--smoke", action="store_true", help="the experiments as RunExperiment --smoke shrinks them")
    parser.add_argument("--key", default="", help="only the experiment whose report has this key")
    parser.add_argument("--test-set", default="", help="test set of the comparison (the first of each experiment)")
    parser.add_argument("--output", default="", metavar="FOLDER", help="folder of the comparison")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the reports and print their paths."""
    tasks = [report for config in options.config for report in reports_of(config, options.smoke)]
    tasks = list({task.task_id: task for task in tasks if task.key.startswith(options.key)}.values())
    if not tasks:
        raise ConfigError(f"--key {options.key}: {options.config[0]} has changed and holds no such experiment any more")
    tables = [_written(task) for task in tasks]
    for table in tables:
        print(_described(table))
    if len(tables) > 1:
        page = _comparison(tables, options.test_set, options.output)
        print(f"Comparison of {len(tables)} experiments: {page}")
    if not any(table.page for table in tables):
        raise ConfigError("no evaluation exists yet, so there is nothing to report")
    return 0


def _written(task: Report) -> _Tables:
    """Return the tables of an experiment and write its report, unless it exists or there are no results at all."""
    if task.tables.complete():
        if not task.complete():
            task.run()
        result = read_result(task.tables.path)
        return _Tables(task, result.arrays, result.measured, result.meta, task.path)
    return _from_evaluations(task)


def _from_evaluations(task: Report) -> _Tables:
    # torch and matplotlib, which other commands do without
    from luigi_prune.jobs.aggregate_job import experiment_tables
    from luigi_prune.report.write import write_report

    paths = {
        cell: str(evaluation.path) if evaluation.complete() else None
        for cell, evaluation in task.tables.evaluations.items()
    }
    readable: dict[str, Result] = {}
    for path in dict.fromkeys(filter(None, paths.values())):
        try:
            readable[path] = read_result(path)
        except (DamagedResult, FileNotFoundError) as error:
            log.warning(f"left out: {error}")
    paths = {cell: path if path in readable else None for cell, path in paths.items()}
    tables = experiment_tables(task.grid, paths, readable.__getitem__)
    if not readable:
        return _Tables(task, tables.arrays, tables.measured, tables.meta, None)
    experiment, folder = task.content, task.tables.path.parent / PARTIAL
    labels, colors = shown_methods(experiment)
    plotting = experiment.experiments.plotting
    parents = {path: {"key": result.key} for path, result in readable.items()}
    write_report(
        tables.arrays,
        tables.meta,
        experiment.model_dump(mode="json", by_alias=True),
        folder,
        key=task.tables.key,
        measured=tables.measured,
        provenance=provenance(parents={os.path.relpath(path, folder): about for path, about in parents.items()}),
        plotting={"min_val": plotting.min_val, "max_val": plotting.max_val},
        labels=labels,
        colors=colors,
    )
    return _Tables(task, tables.arrays, tables.measured, tables.meta, folder / "report.html")


def _described(table: _Tables) -> str:
    missing, expected = _missing(table)
    if table.page is None:
        return f"{table.task.experiment}: no results yet ({expected} evaluations missing)"
    note = f"PARTIAL, {missing} of {expected} results missing: " if missing else ""
    return f"{table.task.experiment}: {note}{table.page}"


def _missing(table: _Tables) -> tuple[int, int]:
    return missing_and_expected(evaluated(table.arrays, table.meta))


def _comparison(tables: Sequence[_Tables], test_set: str, output: str) -> Path:
    from luigi_prune.analysis.across import MemberResult, across, varied_settings
    from luigi_prune.analysis.verdict import verdict
    from luigi_prune.report.across_page import write_comparison

    settings = varied_settings([table.task.content.model_dump(mode="json", by_alias=True) for table in tables])
    members: list[MemberResult] = []
    labels: dict[str, str] = {}
    colors: dict[str, str] = {}
    names = _names([table.task.experiment for table in tables])
    for table, name, varied in zip(tables, names, settings, strict=True):
        sets = [str(known) for known in table.arrays["axes/test_set"]]
        if test_set and test_set not in sets:
            raise ConfigError(f"--test-set {test_set}: not a test set of {name}{nearest(test_set, sets)}")
        metric = str(table.arrays["axes/metric"][0])
        found = verdict(table.arrays, table.meta, test_set or sets[0], metric)
        methods = tuple(str(method) for method in table.arrays["axes/method"])
        members.append(MemberResult(name, {**varied}, found, methods, *_missing(table)))
        own_labels, own_colors = shown_methods(table.task.content)
        labels, colors = own_labels | labels, own_colors | colors
    digest = hashlib.sha256(json.dumps([table.task.key for table in tables]).encode()).hexdigest()[:12]
    folder = Path(output or Path(tables[0].task.results) / "comparisons" / digest).absolute()
    links = [os.path.relpath(table.page, folder) if table.page else None for table in tables]
    try:
        return write_comparison(folder, members, across(members), links, labels, colors)
    except OSError as error:
        raise LuigiPruneError(f"cannot write to {folder}: {error.strerror or error}") from None


def _names(names: Sequence[str]) -> list[str]:
    """Return the names of experiments, numbered where two files have the same."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: at + 1].count(name)})" for at, name in enumerate(names)
    ]
