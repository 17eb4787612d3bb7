"""A results folder as the page shows it: its experiments, and the state of each task from files alone.

A task's state follows from its result, the news of drivers, the claims and heartbeats of jobs, and its inputs:

    done      its result exists
    running   a live driver or a job's heartbeat says so
    queued    its job is submitted and has not started
    failed    the newest driver of the experiment gave up on it
    stopped   it ran when its driver ended without a word; the next run resumes it
    blocked   an input has failed
    waiting   none of these
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luigi_prune.execution import claims
from luigi_prune.execution.backends import locate_jobs
from luigi_prune.identity.paths import checkpoint_path
from luigi_prune.results.run_records import (
    NEWS,
    NEWS_SECONDS,
    TASKS,
    DriverNews,
    RecordedExperiment,
    RecordedTask,
    TaskNews,
    parse_experiment,
    parse_news,
    runs_folder,
)
from luigi_prune.web.confined_files import ConfinedFiles, FolderListings

STATES = ("done", "running", "queued", "failed", "stopped", "blocked", "waiting")
_SILENT_SECONDS = 3 * NEWS_SECONDS + 5  # after which a driver without news is taken as dead
_REFRESH_SECONDS = 1.5  # answers are at most this old, however many browsers ask
_MAX_RECORD = 1 << 29  # bytes
_CLAIM = re.compile(r"\.(.+)\.claim.*")


@dataclass(frozen=True)
class Driver:
    """A driver's last news, and whether it still runs."""

    news: DriverNews
    alive: bool
    age: float  # seconds since its last news


@dataclass
class ExperimentState:
    """The state of an experiment's tasks at one time."""

    states: list[str]
    news: dict[int, TaskNews] = field(default_factory=dict)  # of running, queued, failed and stopped tasks
    drivers: list[Driver] = field(default_factory=list)  # of this experiment, newest first

    @property
    def alive(self) -> list[Driver]:
        """The drivers that run."""
        return [driver for driver in self.drivers if driver.alive]


class _Records:
    """The records in the runs folder with one ending, parsed again only if they have changed."""

    def __init__(self, files: ConfinedFiles, listings: FolderListings, ending: str, parse: Callable[[bytes], Any]):
        self._files, self._listings, self._ending, self._parse = files, listings, ending, parse
        self._known: dict[str, tuple[tuple[int, int, int], float, Any]] = {}

    def read(self) -> dict[str, tuple[Any, float]]:
        """Return the records by file name, each with the seconds since it changed."""
        folder = runs_folder("").name
        names = [name for name in self._listings.names(folder) if name.endswith(self._ending)]
        self._known = {name: entry for name, entry in self._known.items() if name in names}
        for name in names:
            try:
                with self._files.open(f"{folder}/{name}", (self._ending,)) as file:
                    status = os.fstat(file.fileno())
                    version = (status.st_mtime_ns, status.st_ino, status.st_size)
                    known = self._known.get(name)
                    if known is None or known[0] != version:
                        # a change that is observed is timed by this clock, as that of a file server may differ
                        age = 0.0 if known else max(0.0, time.time() - status.st_mtime)
                        record = self._parse(file.read(_MAX_RECORD))
                        self._known[name] = (version, time.monotonic() - age, record)
            except OSError:
                self._known.pop(name, None)
        now = time.monotonic()
        return {name: (record, now - changed) for name, (_, changed, record) in self._known.items() if record}


class WatchedResults:
    """One results folder; its methods may be called from any thread."""

    def __init__(self, results: str | Path):
        self.files = ConfinedFiles(results)
        self.listings = FolderListings(self.files)
        self._experiments = _Records(self.files, self.listings, TASKS, parse_experiment)
        self._drivers = _Records(self.files, self.listings, NEWS, parse_news)
        self._lock = threading.Lock()
        self._answer: tuple[float, dict[str, tuple[RecordedExperiment, ExperimentState]]] = (float("-inf"), {})

    def read(self) -> dict[str, tuple[RecordedExperiment, ExperimentState]]:
        """Return all experiments, by the start of their keys, newest first."""
        with self._lock:
            if time.monotonic() - self._answer[0] > _REFRESH_SECONDS:
                self._answer = (time.monotonic(), self._read())
            return self._answer[1]

    def _read(self) -> dict[str, tuple[RecordedExperiment, ExperimentState]]:
        drivers = [
            Driver(news, alive=news.ended is None and age < _SILENT_SECONDS, age=age)
            for news, age in self._drivers.read().values()
        ]
        drivers.sort(key=lambda driver: driver.news.started, reverse=True)
        found: dict[str, tuple[float, RecordedExperiment, ExperimentState]] = {}
        for experiment, age in self._experiments.read().values():
            own = [driver for driver in drivers if experiment.key in driver.news.reports]
            newest = max((driver.news.started for driver in own), default=time.time() - age)
            found[experiment.key[:12]] = (newest, experiment, self._state(experiment, own))
        ordered = sorted(found.items(), key=lambda entry: entry[1][0], reverse=True)
        return {name: (experiment, state) for name, (_, experiment, state) in ordered}

    def _state(self, experiment: RecordedExperiment, drivers: list[Driver]) -> ExperimentState:
        state = ExperimentState([""] * len(experiment.tasks), {}, drivers)
        claimed: dict[Path, int] = {}
        folders: dict[str, tuple[frozenset[str], set[str]]] = {}  # names, and results with a claim
        for place, task in enumerate(experiment.tasks):
            if os.path.isabs(task.path):  # in a folder that is not watched: known from its readers only
                state.states[place] = "outside"
                continue
            folder, name = os.path.split(task.path)
            if folder not in folders:
                names = self.listings.names(folder)
                folders[folder] = (names, {match[1] for other in names if (match := _CLAIM.fullmatch(other))})
            if name in folders[folder][0]:
                state.states[place] = "done"
            elif name in folders[folder][1]:
                claimed[self.files.root / task.path] = place
        self._add_news(experiment, state)
        self._add_claims(state, claimed)
        self._add_rest(experiment, state)
        return state

    def _add_news(self, experiment: RecordedExperiment, state: ExperimentState) -> None:
        places = {task.key: place for place, task in enumerate(experiment.tasks)}
        newest = [driver for driver in state.drivers if driver.alive] or state.drivers[:1]
        for driver in newest:
            for kind, by_key in (
                ("failed", driver.news.failed),
                ("queued", driver.news.queue),
                ("running", driver.news.running),
            ):
                for key, news in by_key.items():
                    place = places.get(key)
                    if place is None or state.states[place] == "done":
                        continue
                    state.states[place] = kind if driver.alive or kind == "failed" else "stopped"
                    state.news[place] = news

    def _add_claims(self, state: ExperimentState, claimed: dict[Path, int]) -> None:
        """Add jobs that live without a driver, or with one that this folder has no news of."""
        unknown = [path for path, place in claimed.items() if state.states[place] in ("", "stopped")]
        unknown = [path for path in unknown if self._is_claimed_from_inside(path)]
        for path, found in locate_jobs(unknown).items():
            place = claimed[path]
            state.states[place] = "running" if found.running else "queued"
            state.news[place] = TaskNews(message=found.text)

    def _is_claimed_from_inside(self, path: Path) -> bool:
        """Return whether a claim names a submission of this folder; one of another place is not read."""
        claim = claims.newest(path)
        return claim is None or not claim.folder or Path(claim.folder).resolve().is_relative_to(self.files.root)

    def _add_rest(self, experiment: RecordedExperiment, state: ExperimentState) -> None:
        states = state.states
        used = {place for reader, task in enumerate(experiment.tasks) if states[reader] for place in task.inputs}
        for place, task in enumerate(experiment.tasks):  # inputs come first
            if states[place] == "outside":
                states[place] = "done" if place in used else ""
            if states[place]:
                continue
            if any(states[number] in ("failed", "blocked") for number in task.inputs):
                states[place] = "blocked"
            elif not state.alive and self._has_checkpoint(task):
                states[place] = "stopped"
            else:
                states[place] = "waiting"

    def _has_checkpoint(self, task: RecordedTask) -> bool:
        if not task.curves or os.path.isabs(task.path):
            return False
        path = checkpoint_path(task.path)
        return path.name in self.listings.names(str(path.parent))
