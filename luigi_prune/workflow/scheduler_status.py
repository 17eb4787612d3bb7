"""Progress of tasks on Luigi's web page."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
from html import escape
from typing import Any
from urllib.parse import urlsplit

import luigi.rpc

from luigi_prune.errors import ConfigError


def _server(url: str) -> dict[str, Any]:
    """Return what `python -m luigi_prune luigid` says of itself; {} if another server answers, or none.

    Raises urllib.error.HTTPError if it refuses.
    """
    if not url.startswith(("http://", "https://")):
        return {}
    try:
        answer: dict[str, Any] = json.loads(
            luigi.rpc.URLLibFetcher().fetch(f"{url.rstrip('/')}/experiments/api/server", None, 5)
        )
        return answer
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise
        return {}
    except (OSError, ValueError):
        return {}


def serves_pages(scheduler: Any) -> bool:
    """Return whether a scheduler is that of `python -m luigi_prune luigid`, which has a page for every task."""
    return bool(_server(getattr(scheduler, "_url", "")))


def shown_url(url: str) -> str:
    """Return an address without the token in it, for messages."""
    return urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()


def check_admitted(url: str) -> None:
    """Raise ConfigError if the luigid at `url` does not serve runs, or not without a token."""
    name = f"the luigid at {shown_url(url)}"
    try:
        server = _server(url)
    except urllib.error.HTTPError:
        given = "another token" if "@" in url else "a token"
        raise ConfigError(
            f"{name} asks for {given}: luigi.cfg [core] default_scheduler_url, as luigid prints it"
        ) from None
    if server.get("read_only"):
        raise ConfigError(f"{name} is read-only and serves no runs; use another, or --local-scheduler")


class Statuses:
    """Sends the progress of tasks to Luigi's scheduler: at most once per interval, from a separate thread."""

    def __init__(self, scheduler: Any, interval: float):
        self.scheduler = scheduler
        self.interval = interval
        self._latest: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def update(self, task_id: str, fraction: float, message: str) -> None:
        """Store the newest status of a task, to be sent next; never blocks."""
        with self._lock:
            self._latest[task_id] = (fraction, message)
        self._wake.set()

    def close(self) -> None:
        """Stop sending."""
        self._stop = True
        self._wake.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while not self._stop:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                latest, self._latest = self._latest, {}
            for task_id, (fraction, message) in latest.items():
                try:
                    # the web page renders the text as HTML
                    self.scheduler.set_task_status_message(task_id=task_id, status_message=escape(message))
                    self.scheduler.set_task_progress_percentage(
                        task_id=task_id, progress_percentage=round(100 * fraction)
                    )
                except Exception:  # a lost status must not end a run
                    self._pause(60.0)
                    break
            self._pause(self.interval)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stop and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
