"""Tables of a report and their cells: text, with what a page shows beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from luigi_prune.analysis.censoring import Censored
from luigi_prune.analysis.inference import Interval
from luigi_prune.analysis.statistics import Spread

NOTHING = "–"


class Cell(str):
    """The text of a cell, and optionally: a note in small print, a shade in [0, 1], a tone, a number to sort by.

    `tone` is "good", "bad", "warn" or "tied"; `method` the index of the method that the cell names; `key` a name by
    which a script finds the cell.
    """

    note: str
    shade: float | None
    tone: str
    order: float | None
    method: int | None
    key: str

    def __new__(
        cls,
        text: str,
        note: str = "",
        *,
        shade: float | None = None,
        tone: str = "",
        order: float | None = None,
        method: int | None = None,
        key: str = "",
    ) -> Cell:
        """Return the cell."""
        cell = super().__new__(cls, text)
        cell.note, cell.tone, cell.method, cell.key = note, tone, method, key
        cell.shade = shade if shade is not None and np.isfinite(shade) else None
        cell.order = order if order is not None and np.isfinite(order) else None
        return cell

    @property
    def whole(self) -> str:
        """The text with its note."""
        return f"{self} [{self.note}]" if self.note else str(self)


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows; `caption` is self-contained.

    `name` is that of its files and of its element in the page; `matrix` means that columns are short and of one kind;
    `marked` rows are shaded.
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]] = field(default_factory=list)
    note: str = ""
    name: str = ""
    matrix: bool = False
    marked: frozenset[int] = frozenset()


def whole(text: str) -> str:
    """Return the text of a cell with its note, if it has one."""
    return text.whole if isinstance(text, Cell) else text


def number(mean: float, std: float = float("nan"), scale: float = 1.0, digits: int = 2, sign: bool = False) -> str:
    """Return `mean ± std`, without `std` if it is not finite (a single run), or a dash if `mean` is not."""
    if not np.isfinite(mean):
        return NOTHING
    value = round(scale * mean, digits) + 0.0  # no "-0.0"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text + (f" ± {scale * std:.{digits}f}" if np.isfinite(std) else "")


def of_spread(table: Spread, at: tuple[int, ...] | int, scale: float = 1.0, digits: int = 2, sign: bool = False) -> str:
    """Return one entry of a spread as `mean ± std`."""
    return number(float(table.mean[at]), float(table.std[at]), scale, digits, sign)


def points(level: float) -> str:
    """Return a level as a drop in percentage points: 0.005 is `0.5`."""
    return f"{100 * level:g}"


def factor(value: float) -> str:
    """Return a factor of compression: `8.1×`, `32×`."""
    return f"{value:.1f}×" if value < 19.95 else f"{value:.0f}×"


def limits(low: float, high: float, text: str = "{:.1f}") -> str:
    """Return an interval, or nothing if there is none; it may be open above."""
    if np.isnan(low) or np.isnan(high):
        return ""
    return f"{_formatted(low, text)} to {'∞' if high == np.inf else _formatted(high, text)}"


def _formatted(value: float, text: str) -> str:
    """Return a formatted number, without the sign of a zero from below."""
    shown = text.format(value)
    return shown if shown.strip("-0.") else text.format(0.0)


def of_censored(value: Censored, **more: float) -> Cell:
    """Return a compression with its sign, its interval, and how many runs reach the level."""
    reached = f"{value.reached} of {value.of}"
    if not value.reached or not np.isfinite(value.value):
        return Cell(NOTHING, reached, order=0.0, **more)  # type: ignore[arg-type]
    interval = limits(value.low, value.high)
    note = f"{interval}; {reached}" if interval else reached
    return Cell(f"{value.sign}{' ' * bool(value.sign)}{factor(value.value)}", note, order=value.value, **more)  # type: ignore[arg-type]


def of_interval(value: Interval, scale: float = 1.0, digits: int = 2, **more: str) -> Cell:
    """Return a signed mean with its interval as a note."""
    low, high = (scale * limit for limit in (value.low, value.high))
    note = limits(low, high, f"{{:+.{digits}f}}")
    return Cell(number(value.mean, scale=scale, digits=digits, sign=True), note, order=scale * value.mean, **more)  # type: ignore[arg-type]


def duration(seconds: float) -> str:
    """Return a time with three digits, in the unit that suits it."""
    if not np.isfinite(seconds):
        return NOTHING
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
