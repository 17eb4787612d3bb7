"""How far tasks are, for Luigi's web page."""

from __future__ import annotations

import threading
import time
from html import escape
from typing import Any


class Statuses:
    """Tells Luigi's scheduler how far tasks are: seldom, from a thread of its own, and never in anyone's way."""

    def __init__(self, scheduler: Any, interval: float):
        self.scheduler = scheduler
        self.interval = interval
        self._latest: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def tell(self, task_id: str, fraction: float, message: str) -> None:
        """Remember the newest status of a task; returns at once."""
        with self._lock:
            self._latest[task_id] = (fraction, message)
        self._wake.set()

    def close(self) -> None:
        """Stop telling."""
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
                    # the web page shows the text as HTML
                    self.scheduler.set_task_status_message(task_id=task_id, status_message=escape(message))
                    self.scheduler.set_task_progress_percentage(
                        task_id=task_id, progress_percentage=round(100 * fraction)
                    )
                except Exception:  # a status that nobody hears must not end a run
                    self._stop_for(60.0)
                    break
            self._stop_for(self.interval)

    def _stop_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stop and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
