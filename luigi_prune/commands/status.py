"""`status CONFIG`: a live table of an experiment's tasks and jobs, read from the results folder."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from luigi_prune.commands.plan import reports_of
from luigi_prune.errors import ConfigError
from luigi_prune.execution.backends import locate_jobs
from luigi_prune.execution.failures import Failure, read_failure
from luigi_prune.execution.remote_jobs import JobPlace
from luigi_prune.identity.paths import checkpoint_path
from luigi_prune.workflow.job_task import JobTask, job_tasks

_SHOWN = 20  # maximum number of cluster jobs listed


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("status", help="show a live table of an experiment's tasks")
    parser.add_argument("config", help="experiment file")
    parser.add_argument("--once", action="store_true", help="print the table once and exit")
    parser.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="time between updates (2)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show the table until all reports exist or the user interrupts."""
    if not 0.1 <= options.interval < float("inf"):
        raise ConfigError(f"--interval: expected at least 0.1 seconds, got {options.interval:g}")
    console = Console(highlight=False)
    tasks = list(job_tasks(*reports_of(options.config)))
    table, done = progress_table(tasks)
    if options.once or not console.is_terminal:
        console.print(table, soft_wrap=True)
        return 0
    with Live(table, console=console, auto_refresh=False) as live:
        while not done:
            time.sleep(options.interval)
            table, done = progress_table(tasks)
            live.update(table, refresh=True)
    return 0


def progress_table(tasks: list[JobTask]) -> tuple[Group, bool]:
    """Return the table of done and open tasks per family and method, and whether all reports exist.

    Missing results below a finished report count as open, although a run would not compute them.
    """
    done = {task.task_id for task in tasks if task.complete()}
    places = locate_jobs(task.path for task in tasks if task.task_id not in done)
    total = Counter(map(_row, tasks))
    complete = Counter(_row(task) for task in tasks if task.task_id in done)
    table = Table("task", "method", "done", "of", "", box=None)
    for row, count in total.items():
        bar = "#" * round(20 * complete[row] / count)
        table.add_row(*row, str(complete[row]), str(count), f"{bar:.<20}")
    idle = [task for task in tasks if task.task_id not in done and task.path not in places]
    training = [(task, path) for task in idle if (path := checkpoint_path(task.path)).exists()]
    lines = [Text(f"in training: {task.title} (checkpoint {_age(path)} ago)") for task, path in training]
    failed = [(task, failure) for task in idle if (failure := read_failure(task.path))]
    lines += [Text(_failed_line(task.title, failure)) for task, failure in failed]
    lines += _submitted({task.path: task.title for task in tasks}, places)
    reports = [task for task in tasks if task.task_family == "Report"]
    end = [Text(f"report: {task.path}") for task in reports if task.task_id in done]
    return Group(table, *lines, *end), len(end) == len(reports)


def _row(task: JobTask) -> tuple[str, str]:
    return task.task_family, getattr(task, "method", "")


def _failed_line(title: str, failure: Failure) -> str:
    return f"failed: {title}: {failure.line}" + (f"  (log: {failure.log})" if failure.log else "")


def _submitted(titles: dict[Path, str], places: dict[Path, JobPlace]) -> list[Text]:
    """Return a line per job of a cluster, running ones first."""
    ordered = sorted(places.items(), key=lambda entry: not entry[1].running)
    lines = [Text(f"{titles[path]}: {place.text}") for path, place in ordered[:_SHOWN]]
    more = f"; the first {_SHOWN} are shown" if len(ordered) > _SHOWN else ""
    for label in dict.fromkeys(place.label for place in places.values()):
        running = [place.running for place in places.values() if place.label == label]
        lines.append(Text(f"{sum(running)} of {len(running)} {label}s run{more}"))
    return lines


def _age(path: Path) -> str:
    try:
        return f"{max(0, time.time() - path.stat().st_mtime):.0f} s"
    except FileNotFoundError:
        return "a moment"
