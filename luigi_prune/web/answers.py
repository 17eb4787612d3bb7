"""What the page's scripts ask for, as JSON data: experiments, the state of one, and one task in full."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from typing import Any

from luigi_prune.execution.failures import cause
from luigi_prune.results.run_records import RecordedExperiment, RecordedTask, TaskNews
from luigi_prune.web import live_curves
from luigi_prune.web.result_contents import contents_of
from luigi_prune.web.watched_results import STATES, Driver, ExperimentState, WatchedResults

_LOG_BYTES = 64_000
# how backends describe the place of a job: "SLURM job 12_3 pending (Priority, expected to start ...)", "... on n2: ..."
_JOB = re.compile(
    r"(?P<job>[\w ]*job \S+?):?(?: [A-Za-z_]+)?(?: \((?P<reason>[^,)]*)(?:, (?P<expected>[^)]*))?\))?"
    r"(?: on (?P<node>[^\s:]+))?(?:[:,] *(?P<rest>.*))?",
    re.S,
)


def overview(folders: list[WatchedResults]) -> list[dict[str, Any]]:
    """Return every experiment of every folder in a few figures."""
    found = []
    for number, folder in enumerate(folders):
        for name, (experiment, state) in folder.read().items():
            found.append(
                {
                    "id": f"{number}-{name}",
                    "name": experiment.name,
                    "dataset": experiment.dataset,
                    "network": experiment.network,
                    "methods": len(experiment.labels),
                    "results": str(folder.files.given),
                    "counts": _counts(state.states),
                    "total": len(state.states),
                    "report": _report(number, folder, experiment),
                    **_drivers(state),
                }
            )
    return found


def whole_experiment(number: int, folder: WatchedResults, name: str) -> dict[str, Any]:
    """Return what stays as it is while an experiment runs; raises KeyError if there is none of this name."""
    experiment, _ = folder.read()[name]
    columns = ("key", "family", "title", "method", "keep_ratio", "net", "repetition", "test_set")
    rows = [[task.key[:12], *(getattr(task, column) for column in columns[1:])] for task in experiment.tasks]
    return {
        "id": f"{number}-{name}",
        "name": experiment.name,
        "key": experiment.key,
        "dataset": experiment.dataset,
        "network": experiment.network,
        "labels": experiment.labels,
        "results": str(folder.files.given),
        "command": experiment.command,
        "settings": experiment.settings,
        "columns": columns,
        "tasks": rows,
    }


def experiment_state(number: int, folder: WatchedResults, name: str) -> dict[str, Any]:
    """Return what changes while an experiment runs; raises KeyError if there is none of this name."""
    experiment, state = folder.read()[name]
    families: dict[str, Counter[str]] = {}
    for task, of_task in zip(experiment.tasks, state.states, strict=True):
        families.setdefault(task.family, Counter())[of_task] += 1
    return {
        "id": f"{number}-{name}",
        "states": "".join(of_task[0] for of_task in state.states),
        "counts": _counts(state.states),
        "families": [{"family": family, **counts} for family, counts in families.items()],
        "news": {place: _short(state.states[place], news) for place, news in state.news.items()},
        "report": (report := _report(number, folder, experiment)),
        "report_age": _age(folder, report),
        **_drivers(state),
    }


def task_in_full(folders: list[WatchedResults], key: str, experiment_id: str = "") -> dict[str, Any]:
    """Return everything about the task whose key starts with `key`; raises KeyError if there is none."""
    number, name, place = _find(folders, key, experiment_id)
    folder = folders[number]
    experiment, state = folder.read()[name]
    task, of_task = experiment.tasks[place], state.states[place]
    news = state.news.get(place, TaskNews())
    file = contents_of(folder.files, task.path) if of_task == "done" else {}
    logged = folder.files.tail(task.log, _LOG_BYTES) if task.log else ""
    readers = [reader for reader, other in enumerate(experiment.tasks) if place in other.inputs]
    return {
        "experiment": {"id": f"{number}-{name}", "name": experiment.name},
        "key": task.key,
        "family": task.family,
        "title": task.title,
        "method": task.method,
        "label": experiment.labels.get(task.method, task.method),
        "keep_ratio": task.keep_ratio,
        "net": task.net,
        "repetition": task.repetition,
        "test_set": task.test_set,
        "state": of_task,
        "news": _short(of_task, news) | {"full": news.message if of_task == "failed" else "", "since": news.since},
        "inputs": [_neighbour(experiment, state, other) for other in task.inputs],
        "readers": [_neighbour(experiment, state, other) for other in readers[:12]],
        "more_readers": max(0, len(readers) - 12),
        "path": _absolute(folder, task.path),
        "log_path": _absolute(folder, task.log),
        "log": logged,
        "curves": file.pop("curves", None) or _live_curves(folder, task),
        "result": file,
        "report": _report(number, folder, experiment) if task.family == "Report" else "",
        "settings": {} if "spec" in file else experiment.settings,
        **_retry(experiment, state, of_task),
    }


def _counts(states: list[str]) -> dict[str, int]:
    counted = Counter(states)
    return {name: counted[name] for name in STATES if counted[name]}


def _short(state: str, news: TaskNews) -> dict[str, Any]:
    """Return what is shown of a task's news, with job, node and reason for waiting if its backend names them."""
    message = cause(news.message) if state == "failed" else news.message
    short: dict[str, Any] = {}
    if match := _JOB.fullmatch(news.message):
        named = {name: match[name] for name in ("job", "node", "reason", "expected")}
        short = {name: text for name, text in named.items() if text and text != "None"}
        message = match["rest"] or message
    short["message"] = message[:500]
    if state in ("running", "stopped"):
        short["fraction"] = round(news.fraction, 4)
    if news.since:
        short["seconds"] = max(0, round(time.time() - news.since))
    if news.left is not None:
        short["left"] = round(news.left)
    return short


def _drivers(state: ExperimentState) -> dict[str, Any]:
    estimates = [driver.news.estimate for driver in state.alive if driver.news.estimate is not None]
    return {
        "estimate": round(max(estimates)) if estimates else None,
        "alive": len(state.alive),
        "drivers": [_driver(driver) for driver in state.drivers[:8]],
    }


def _driver(driver: Driver) -> dict[str, Any]:
    news = driver.news
    return {
        "host": news.host,
        "pid": news.pid,
        "backend": news.backend,
        "slots": news.slots,
        "state": "running" if driver.alive else "ended" if news.ended else "silent",
        "age": round(time.time() - news.ended if news.ended else driver.age),
        "to_do": news.to_do,
        "done": news.done,
        "failed": len(news.failed),
        "started": news.started,
    }


def _report(number: int, folder: WatchedResults, experiment: RecordedExperiment) -> str:
    """Return the address of the experiment's report, or of one that is partial; "" if there is none."""
    whole = experiment.tasks[-1].path
    parent = os.path.dirname(os.path.dirname(whole))
    partial = [f"{parent}/{name}/report.html" for name in sorted(folder.listings.names(parent)) if "partial" in name]
    for path in (whole, *partial):
        if not os.path.isabs(path) and os.path.basename(path) in folder.listings.names(os.path.dirname(path)):
            return f"/experiments/file/{number}/{path}"
    return ""


def _age(folder: WatchedResults, report: str) -> int | None:
    """Return the seconds since a report of this address was written."""
    try:
        path = folder.files.path("/".join(report.split("/")[4:]))
        return max(0, round(time.time() - path.stat().st_mtime)) if report else None
    except OSError:
        return None


def _neighbour(experiment: RecordedExperiment, state: ExperimentState, place: int) -> dict[str, str]:
    task = experiment.tasks[place]
    return {"key": task.key[:12], "title": task.title, "state": state.states[place]}


def _absolute(folder: WatchedResults, path: str) -> str:
    return path if not path or os.path.isabs(path) else str(folder.files.root / path)


def _live_curves(folder: WatchedResults, task: RecordedTask) -> live_curves.Curves:
    if not task.curves:
        return {}
    return live_curves.from_events(folder.files, task.curves, folder.listings.names(task.curves))


def _retry(experiment: RecordedExperiment, state: ExperimentState, of_task: str) -> dict[str, Any]:
    """Return whether a driver would run the task again if asked, and else what a user can do."""
    possible = of_task == "failed" and any(driver.alive for driver in state.drivers)
    return {"retry": possible, "command": experiment.command}


def _find(folders: list[WatchedResults], key: str, experiment_id: str) -> tuple[int, str, int]:
    """Return the folder, the experiment and the place of a task; of several, one of an experiment that runs."""
    found = []
    for number, folder in enumerate(folders):
        for name, (experiment, state) in folder.read().items():
            if experiment_id in ("", f"{number}-{name}"):
                places = (place for place, task in enumerate(experiment.tasks) if task.key.startswith(key))
                found += [(not state.alive, number, name, place) for place in places]
    if not found:
        raise KeyError(key)
    return min(found, key=lambda entry: entry[:2])[1:]


def folder_of(folders: list[WatchedResults], experiment_id: str) -> tuple[int, WatchedResults, str]:
    """Return the folder that an experiment's id names, with its number and the rest of the id; raises KeyError."""
    number, _, name = experiment_id.partition("-")
    if not number.isdigit() or int(number) >= len(folders):
        raise KeyError(experiment_id)
    return int(number), folders[int(number)], name
