"""What a job says while it runs: one small file per job, rewritten whole, which the driver looks at now and then.

Compute nodes need no way to the driver but the shared folder. The file's age is the job's heartbeat.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from luigi_prune.execution.job import Outcome

HEARTBEAT_SECONDS = 10.0
_PROGRESS_SECONDS = 1.0  # between two files, however often a job reports
_TEXT = 300
_MESSAGE = 20_000


@dataclass(frozen=True)
class News:
    """The newest of a job."""

    restart: int = 0  # how often SLURM has requeued it
    host: str = ""
    fraction: float = 0.0
    message: str = ""
    outcome: dict[str, Any] | None = None

    @property
    def ended(self) -> Outcome | None:
        """How the job ended, once it has."""
        return Outcome(**self.outcome) if self.outcome else None


def news_path(folder: str | Path, index: int) -> Path:
    """Return where the news of element `index` of a submission lies: with the news of all other jobs."""
    folder = Path(folder)
    return folder.parent / "news" / f"{folder.name}.{index}.json"


def read(path: str | Path) -> News | None:
    """Return the news at `path`; None where there is none (yet), or nothing that makes sense."""
    try:
        news = News(**json.loads(Path(path).read_text()))
        as_said = [type(value) for value in (news.restart, news.host, news.fraction, news.message)]
        if as_said != [int, str, float, str] or not isinstance(news.outcome, (dict, type(None))):
            return None
        return news if news.outcome is None or news.ended else None
    except (OSError, ValueError, TypeError):
        return None


Mark = tuple[int, int, int]


def marks(folder: str | Path) -> dict[str, Mark]:
    """Return what changes with every writing of each file of a news folder: one look, however many jobs there are.

    The time alone does not do where a file system counts in whole seconds.
    """
    found = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                status = entry.stat()
                found[entry.name] = (status.st_mtime_ns, entry.inode(), status.st_size)
    return found


class Herald:
    """Writes the news of a job, from a thread of its own between reports; never raises, never blocks a training."""

    def __init__(self, path: Path, restart: int, rank: int):
        """Rank 0 speaks; the others are heard of only where they fail, which goes into a file of their own."""
        self.path = path
        self.rank = rank
        self._news = News(restart, socket.gethostname())
        self._changed = threading.Event()
        self._silent = False
        self._lock = threading.Lock()
        if rank == 0:
            with suppress(OSError):
                failure_path(path).unlink(missing_ok=True)
            self._write(self._news, path)
            threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def progress(self, fraction: float, message: str) -> None:
        """Report progress; returns at once."""
        self._news = replace(self._news, fraction=float(fraction), message=str(message)[:_TEXT])
        self._changed.set()

    def end(self, outcome: Outcome) -> None:
        """Say how this process ended; of several that fail, the first is believed."""
        with self._lock:
            self._silent = True
            last = asdict(replace(outcome, message=outcome.message[-_MESSAGE:]))
            news = replace(self._news, outcome=last)
            if self.rank == 0:
                self._write(news, self.path)
            if outcome.status not in ("done", "interrupted"):
                self._write(news, failure_path(self.path), first=True)

    def _beat(self) -> None:
        while True:
            self._changed.wait(HEARTBEAT_SECONDS)
            self._changed.clear()
            with self._lock:
                if self._silent:
                    return
                self._write(self._news, self.path)
            time.sleep(_PROGRESS_SECONDS)

    def _write(self, news: News, path: Path, first: bool = False) -> None:
        """Write a file whole; with `first`, only where there is none."""
        private = path.with_name(f".{path.name}.{self.rank}")
        with suppress(OSError):
            private.write_text(json.dumps(asdict(news)))
            if not first:
                os.replace(private, path)
                return
            try:
                os.link(private, path)
            except FileExistsError:
                pass
            except OSError:  # no hard links here
                if not path.exists():
                    private.replace(path)
            private.unlink(missing_ok=True)


def failure_path(path: Path) -> Path:
    """Return where the first process that fails says so."""
    return path.with_suffix(".failure")
