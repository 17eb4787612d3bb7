"""Partial reports that a page asks for, each written by `python -m luigi_prune report` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luigi_prune.results.run_records import (
    TASKS,
    RecordedExperiment,
    experiment_path,
    parse_experiment,
    runs_folder,
)
from luigi_prune.web.watched_results import WatchedResults

_OTHERS_WRITE = 0o022


class ReportRefused(Exception):
    """No report can be written; the reason is for people."""


@dataclass(frozen=True)
class _Ended:
    """How the last process for an experiment ended."""

    succeeded: bool
    message: str
    at: float


class ReportWriter:
    """Writes one report at a time; its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writing: tuple[str, float] | None = None  # id of an experiment, and the time of the start
        self._ended: dict[str, _Ended] = {}

    def start(self, experiment_id: str, folder: WatchedResults, name: str) -> None:
        """Start to write the partial report of an experiment; raises ReportRefused, and KeyError if there is none."""
        if reason := _reason_against(folder, name):
            raise ReportRefused(reason)
        record = _own_record(folder, folder.read()[name][0])
        if record is None:
            raise ReportRefused("The record of its run is gone")
        with self._lock:
            if self._writing:
                raise ReportRefused("A report is being written already; try again when it is there")
            self._writing = (experiment_id, time.time())
        threading.Thread(target=self._write, args=(experiment_id, record), name="report", daemon=True).start()

    def state(self, experiment_id: str, folder: WatchedResults, name: str) -> dict[str, Any]:
        """Return whether a partial report can be written, or why not, and how far the last one is."""
        now, writing, ended = time.time(), self._writing, self._ended.get(experiment_id)
        shown: dict[str, Any] = {"reason": _reason_against(folder, name)}
        if writing:
            busy = "writing" if writing[0] == experiment_id else "busy"
            shown |= {"state": busy, "seconds": round(now - writing[1])}
        elif ended:
            state = "written" if ended.succeeded else "failed"
            shown |= {"state": state, "seconds": round(now - ended.at), "message": ended.message}
        return shown

    def _write(self, experiment_id: str, record: RecordedExperiment) -> None:
        command = [sys.executable, "-m", "luigi_prune", "report", record.config, "--key", record.key]
        command += ["--smoke"] * record.smoke
        try:
            ended = subprocess.run(
                command, cwd=record.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            lines = (ended.stderr if ended.returncode else ended.stdout).strip().splitlines()
            succeeded, message = not ended.returncode, lines[-1] if lines else f"it ended with code {ended.returncode}"
        except OSError as error:
            succeeded, message = False, str(error)
        if succeeded:  # "NAME: PARTIAL, 2 of 9 results missing: PATH"
            _, partial, rest = message.partition(": PARTIAL, ")
            message = rest.partition(": ")[0] if partial else ""
        with self._lock:
            self._ended[experiment_id] = _Ended(succeeded, message.removeprefix("error: ")[:500], time.time())
            self._writing = None


def _reason_against(folder: WatchedResults, name: str) -> str:
    """Return why no partial report of an experiment can be written; "" if one can. Raises KeyError."""
    experiment, state = folder.read()[name]
    if state.states[-1] == "done":
        return "The report exists"
    done = (of_task == "done" for task, of_task in zip(experiment.tasks, state.states, strict=True)
            if task.family == "Evaluate")  # fmt: skip
    if not any(done):
        return "No network is evaluated yet"
    if not experiment.config:
        return "Its run was started by an earlier version"
    if _record_file(folder, experiment) is None:
        return "The record of its run belongs to another user, or others can change it"
    return ""


def _record_file(folder: WatchedResults, experiment: RecordedExperiment) -> Any:
    """Return an experiment's record, opened, if it can only be luigid's user who wrote it; else None.

    The record names a file that may hold code, and whoever can write to the results folder could make a record.
    """
    path = Path(runs_folder(""), experiment_path("", experiment.name, experiment.key).name)
    try:
        file = folder.files.open(path, (TASKS,))
    except FileNotFoundError:
        return None
    status = os.fstat(file.fileno())
    if status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE:
        return file
    file.close()
    return None


def _own_record(folder: WatchedResults, experiment: RecordedExperiment) -> RecordedExperiment | None:
    if (file := _record_file(folder, experiment)) is None:
        return None
    with file:
        return parse_experiment(file.read())
