"""`plan CONFIG`: list the tasks that a run would start, with reasons."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.errors import DamagedResult
from luigi_prune.results.hdf5_file import read_about, verify
from luigi_prune.workflow.job_task import JobTask, family_counts
from luigi_prune.workflow.settings import directories_for
from luigi_prune.workflow.tasks import Report

Listed = dict[Path, frozenset[str]]  # names of the files of a folder
_DIGEST = re.compile(r"@[0-9a-f]{16}(?=\")")  # hash of the sources of a foreign part


def reports_of(config: str, smoke: bool = False) -> list[Report]:
    """Return the Report task of every experiment of a configuration file; raises ConfigError."""
    return [Report.of(experiment, directories_for(experiment)) for experiment in load_experiments(config, smoke)]


def to_run(reports: list[Report]) -> list[tuple[JobTask, str]]:
    """Return the tasks that a run would start, inputs first, each with the reason.

    As in a run, dependencies of complete tasks are skipped; the inputs of the listed tasks are verified.
    """
    planned: dict[str, tuple[JobTask, str]] = {}
    listed: Listed = {}

    def visit(task: JobTask, reason: str) -> None:
        if task.task_id in planned:
            return
        planned[task.task_id] = (task, reason)
        for required in task.requires().values():
            if why := reason_to_run(required, listed):
                visit(required, why)
        planned[task.task_id] = planned.pop(task.task_id)  # inputs first

    for report in reports:
        if not report.complete():
            visit(report, reason_to_run(report, listed) or "missing")
    return list(planned.values())


def reason_to_run(task: JobTask, listed: Listed | None = None) -> str:
    """Return why a task has to run: damaged, version, source, missing, or "" if its result is valid.

    `listed` holds the contents of folders that are read only once for many tasks.
    """
    names = _names_in(task.path.parent, {} if listed is None else listed)
    try:
        if task.path.suffix == ".h5":
            if task.path.name not in names:
                return _reason_beside(task, names)
            verify(task.path)
            return ""
        return "" if task.complete() else "missing"
    except DamagedResult as damage:
        return f"damaged ({damage.reason})"
    except FileNotFoundError:
        return _reason_beside(task, names)


def _names_in(folder: Path, listed: Listed) -> frozenset[str]:
    """Return the names of the files in a folder; none if it is missing."""
    if folder not in listed:
        try:
            listed[folder] = frozenset(os.listdir(folder))
        except OSError:
            listed[folder] = frozenset()
    return listed[folder]


def _reason_beside(task: JobTask, names: frozenset[str]) -> str:
    """Return "version" if the folder has a result of the same spec but of another algorithm version.

    "source" if the spec of one differs only in the sources of foreign parts; else "missing".
    """
    if not names or not (stem := task.path.name.rpartition("-")[0]):
        return "missing"
    siblings = [name for name in sorted(names) if name.startswith(f"{stem}-") and name.endswith(".h5")]
    reason, spec = "missing", json.dumps(json.loads(task.spec), sort_keys=True) if siblings else ""
    for sibling in siblings:
        try:
            other = json.dumps(read_about(task.path.with_name(sibling))["spec"], sort_keys=True)
        except (OSError, KeyError):
            continue
        if other == spec:
            return "version"
        if _DIGEST.sub("", other) == _DIGEST.sub("", spec):
            reason = "source"
    return reason


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("plan", help="list what a run would compute, and why, without starting it")
    parser.add_argument("config", help="experiment file")
    parser.add_argument("--smoke", action="store_true", help="the experiment as RunExperiment --smoke shrinks it")
    parser.add_argument("--all", action="store_true", help="list all tasks, even if there are many")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the plan."""
    console = Console(highlight=False)
    reports = reports_of(options.config, options.smoke)
    tasks = to_run(reports)
    if not tasks:
        console.print("Nothing to compute: all reports exist.")
        for report in reports:
            console.print(f"Report: {report.path}", soft_wrap=True)
        return 0
    shown = tasks if options.all or len(tasks) <= 60 else tasks[:50]
    table = Table("task", "why", box=None)
    for task, reason in shown:
        table.add_row(task.title, reason)
    console.print(table)
    if len(shown) < len(tasks):
        console.print(f"... and {len(tasks) - len(shown)} more (--all lists them)")
    console.print(f"{len(tasks)} tasks to do ({family_counts(task.task_family for task, _ in tasks)})")
    console.print(f"because: {_counts([reason.split(' ')[0] for _, reason in tasks])}")
    console.print(f"results below {Path(reports[0].results)}", soft_wrap=True)
    return 0


def _counts(names: list[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).items())
