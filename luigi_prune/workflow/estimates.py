"""How long a task, and a run, will still take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SHORT = ("Aggregate", "Report")  # families that take seconds, and come last
_MAX_RATIO = 10  # of the bounds of an estimate, beyond which it would say nothing


@dataclass
class Running:
    """Progress of a running task, and the time and fraction from which its pace is measured."""

    title: str
    fraction: float = 0.0
    message: str = ""
    updated: float = 0.0  # time of the last change of `fraction`
    first_fraction: float = 0.0
    first: float | None = None  # time of the first progress reported since the start or a resume

    def update(self, fraction: float, message: str, now: float) -> None:
        """Record the progress; `now` in seconds of any clock."""
        if fraction < self.fraction:  # requeued: the pace is measured anew
            self.first = None
        if fraction > 0 and self.first is None:
            self.first, self.first_fraction = now, fraction
        if fraction != self.fraction:
            self.updated = now
        self.fraction, self.message = fraction, message

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds left at the pace so far; None before two reports of progress.

        The pace excludes the start of the process and progress before a resume.
        """
        if self.first is None or self.fraction <= self.first_fraction:
            return None
        pace = (self.fraction - self.first_fraction) / (self.updated - self.first) if self.updated > self.first else 0.0
        return max(0.0, (1 - self.fraction) / pace - (now - self.updated)) if pace else None

    def status(self, now: float) -> str:
        """Return the last message, with the estimated time left."""
        left = self.seconds_left(now)
        return self.message + (f", about {duration(left)} left" if left is not None else "")

    def line(self, now: float) -> str:
        """Return the task in one line."""
        return f"{self.title}  {self.fraction:4.0%}  {self.status(now)}" if self.message else self.title


def seconds_left(
    to_do: Counter[str],
    done: Counter[str],
    running: Sequence[tuple[str, Running]],
    seconds: Mapping[str, Sequence[float]],
    at_once: int,
    elapsed: float,
    now: float,
) -> tuple[float, float] | None:
    """Return the least and the most seconds until tasks are done; None if that is unknown or would mean little.

    `to_do` and `done` count tasks by family, `seconds` has what jobs of each family have taken, `elapsed` is the time
    since the first submission. The least assumes that all of `at_once` tasks compute all the time. The most assumes the
    pace so far, which includes waiting in queues, starts of processes, and what another run does.
    """
    if any(family not in seconds and family not in _SHORT for family in to_do):
        return None
    mean = {family: sum(of_family) / len(of_family) for family, of_family in seconds.items()}
    begun = sum(task.fraction * mean.get(family, 0.0) for family, task in running)
    left = max(0.0, sum(count * mean.get(family, 0.0) for family, count in to_do.items()) - begun)
    ended = begun + sum(count * mean.get(family, 0.0) for family, count in done.items())
    longest = max((task.seconds_left(now) or 0.0 for _, task in running), default=0.0)
    least = max(longest, left / at_once)
    most = max(least, left * elapsed / ended if ended else 0.0)
    return (least, most) if most <= _MAX_RATIO * least else None


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def shown_range(least: float, most: float) -> str:
    """Return "about 4 min", or "4 min to 9 min" if the bounds differ much."""
    if most < 1.5 * least or duration(least) == duration(most):
        return f"about {duration(most)}"
    return f"{duration(least)} to {duration(most)}"
