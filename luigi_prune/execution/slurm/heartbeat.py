"""Heartbeats of running jobs: one small file per job, rewritten whole, which the driver polls.

Compute nodes reach the driver only through the shared folder. The age of the file is the age of the heartbeat.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from luigi_prune.execution.job import Outcome

HEARTBEAT_SECONDS = 10.0
_PROGRESS_SECONDS = 1.0  # least time between two files, however often a job reports progress
_MAX_MESSAGE = 300  # characters of a progress message
_MAX_OUTCOME_MESSAGE = 20_000  # characters of an outcome's message


@dataclass(frozen=True)
class Heartbeat:
    """Latest state that a job has reported; its fields are those of the JSON file."""

    restart: int = 0  # how often SLURM has requeued the job
    host: str = ""
    fraction: float = 0.0
    message: str = ""
    outcome: dict[str, Any] | None = None

    @property
    def ended(self) -> Outcome | None:
        """The job's outcome; None while it runs."""
        return Outcome(**self.outcome) if self.outcome else None


def heartbeat_path(folder: str | Path, index: int) -> Path:
    """Return the heartbeat file of job `index` of a submission; all submissions share one folder of them."""
    folder = Path(folder)
    return folder.parent / "news" / f"{folder.name}.{index}.json"


def failure_path(path: Path) -> Path:
    """Return the file to which the first failing process of the job with heartbeat file `path` writes its outcome."""
    return path.with_suffix(".failure")


class HeartbeatPaths(NamedTuple):
    """The files to which a job writes its heartbeat and its failure."""

    folder: Path
    file: Path
    failure: Path
    name: str
    failure_name: str


@lru_cache(maxsize=10_000)  # polled every second for hundreds of jobs: building the paths would dominate
def heartbeat_paths(folder: Path, index: int) -> HeartbeatPaths:
    """Return the files of job `index` of a submission."""
    file = heartbeat_path(folder, index)
    failure = failure_path(file)
    return HeartbeatPaths(file.parent, file, failure, file.name, failure.name)


def read_heartbeat(path: str | Path) -> Heartbeat | None:
    """Return the heartbeat in a file; None if the file is missing or damaged."""
    try:
        heartbeat = Heartbeat(**json.loads(Path(path).read_text()))
        values = (heartbeat.restart, heartbeat.host, heartbeat.fraction, heartbeat.message)
        if [type(value) for value in values] != [int, str, float, str]:
            return None
        if not isinstance(heartbeat.outcome, (dict, type(None))):
            return None
        return heartbeat if heartbeat.outcome is None or heartbeat.ended else None
    except (OSError, ValueError, TypeError):
        return None


FileVersion = tuple[int, int, int]


def file_versions(folder: str | Path) -> dict[str, FileVersion]:
    """Return (modification time in ns, inode, size) of each file in a folder of heartbeats, by name, from one scan.

    The time alone is not enough: some file systems store whole seconds.
    """
    versions = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                status = entry.stat()
                versions[entry.name] = (status.st_mtime_ns, entry.inode(), status.st_size)
    return versions


class HeartbeatWriter:
    """Writes the heartbeats of one process from a background thread; never raises, never blocks a training."""

    def __init__(self, path: Path, restart: int, rank: int):
        """Rank 0 writes heartbeats; the other ranks write only a failure, to a file of its own."""
        self.path = path
        self.rank = rank
        self._heartbeat = Heartbeat(restart, socket.gethostname())
        self._changed = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        if rank == 0:
            with suppress(OSError):
                failure_path(path).unlink(missing_ok=True)
            self._write(self._heartbeat, path)
            threading.Thread(target=self._write_periodically, name="heartbeat", daemon=True).start()

    def progress(self, fraction: float, message: str) -> None:
        """Report progress; returns at once."""
        self._heartbeat = replace(self._heartbeat, fraction=float(fraction), message=str(message)[:_MAX_MESSAGE])
        self._changed.set()

    def end(self, outcome: Outcome) -> None:
        """Report how this process ended; of several failures, the first is kept."""
        with self._lock:
            self._closed = True
            truncated = asdict(replace(outcome, message=outcome.message[-_MAX_OUTCOME_MESSAGE:]))
            heartbeat = replace(self._heartbeat, outcome=truncated)
            if self.rank == 0:
                self._write(heartbeat, self.path)
            if outcome.status not in ("done", "interrupted"):
                self._write(heartbeat, failure_path(self.path), overwrite=False)

    def withdraw(self) -> None:
        """Report nothing any more, and remove the heartbeat: the job is cancelled, or another one has taken over."""
        with self._lock:
            self._closed = True
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _write_periodically(self) -> None:
        while True:
            self._changed.wait(HEARTBEAT_SECONDS)
            self._changed.clear()
            with self._lock:
                if self._closed:
                    return
                self._write(self._heartbeat, self.path)
            time.sleep(_PROGRESS_SECONDS)

    def _write(self, heartbeat: Heartbeat, path: Path, overwrite: bool = True) -> None:
        """Write a file atomically; without `overwrite`, only if it does not exist."""
        private = path.with_name(f".{path.name}.{self.rank}")
        with suppress(OSError):
            private.write_text(json.dumps(asdict(heartbeat)))
            if overwrite:
                os.replace(private, path)
                return
            try:
                os.link(private, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                if not path.exists():
                    private.replace(path)
            private.unlink(missing_ok=True)
