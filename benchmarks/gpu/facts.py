"""What a step reports: one fact a line, with a value and a verdict. Needs nothing but the standard library."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

OK, FAILED, SKIPPED, MEASURED = "ok", "FAILED", "skipped", "measured"


@dataclass(frozen=True)
class Fact:
    """One line of the report; `numbers` holds the value's parts for programs."""

    name: str
    value: str
    verdict: str  # ok, FAILED, skipped or measured (a number that has no threshold)
    numbers: dict[str, Any] = field(default_factory=dict)


class Facts:
    """Collects the facts of one step and passes each on at once; knows how long the step may still take."""

    def __init__(self, seconds: float = 600.0, write: Callable[[dict[str, Any]], None] = lambda fact: None) -> None:
        self.all: list[Fact] = []
        self._write = write
        self._deadline = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until the step is killed."""
        return self._deadline - time.monotonic()

    @property
    def failed(self) -> list[Fact]:
        """The facts with verdict FAILED."""
        return [fact for fact in self.all if fact.verdict == FAILED]

    def check(self, name: str, passed: bool, value: object, **numbers: Any) -> None:
        """Report a fact that either holds or does not."""
        self._add(Fact(name, str(value), OK if passed else FAILED, numbers))

    def measure(self, name: str, value: object, **numbers: Any) -> None:
        """Report a number that has no threshold."""
        self._add(Fact(name, str(value), MEASURED, numbers))

    def skip(self, name: str, why: object) -> None:
        """Report a fact that was not looked at, and why."""
        self._add(Fact(name, str(why), SKIPPED))

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Report an exception of the block as a failed fact, so that the next one is looked at all the same."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self._add(Fact(name, one_line(error), FAILED))

    def _add(self, fact: Fact) -> None:
        self.all.append(fact)
        self._write(asdict(fact))


def one_line(error: BaseException, characters: int = 300) -> str:
    """Return an exception's type and the beginning of its message as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:characters]
