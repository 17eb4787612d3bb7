"""`status CONFIG`: a live table of an experiment's tasks and jobs, read from the results folder."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
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
from luigi_prune.workflow.job_task import JobTask, walk

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
    tasks = [task for task in walk(*reports_of(options.config)) if isinstance(task, JobTask)]
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
    total: dict[tuple[str, str], int] = defaultdict(int)
    complete: dict[tuple[str, str], int] = defaultdict(int)
    training: list[tuple[JobTask, Path]] = []
    places = locate_jobs(task.path for task in tasks)
    for task in tasks:
        row = (task.task_family, getattr(task, "method", ""))
        total[row] += 1
        if task.complete():
            complete[row] += 1
        elif task.path not in places and (checkpoint := checkpoint_path(task.path)).exists():
            training.append((task, checkpoint))
    table = Table("task", "method", "done", "of", "", box=None)
    for row, count in total.items():
        bar = "#" * round(20 * complete[row] / count)
        table.add_row(row[0], row[1], str(complete[row]), str(count), f"{bar:.<20}")
    lines = [Text(f"in training: {task.title} (checkpoint {_age(path)} ago)") for task, path in training]
    failed = [(task, read_failure(task.path)) for task in tasks if task.path not in places and not task.complete()]
    lines += [Text(_failed_line(task.title, failure)) for task, failure in failed if failure]
    lines += _submitted({task.path: task.title for task in tasks}, places)
    done = all(task.complete() for task in tasks if task.task_family == "Report")
    end = [Text(f"report: {task.path}") for task in tasks if task.task_family == "Report" and task.complete()]
    return Group(table, *lines, *end), done


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
