"""Methods that installed packages add: entry points of the group `luigi_prune.methods`, one for each method.

    [project.entry-points."luigi_prune.methods"]
    MyNet = "my_package.methods:MY_NET"        # the method's name, and where its MethodRow stands

Names are read from the packages' metadata when a method is first looked up, never when luigi_prune is imported. A
package is imported when its method is used, or when all methods are listed; one that cannot be imported then is a
warning, and an error only for who uses its method. Two methods of one name are an error at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from typing import get_args

from luigi_prune.catalogue.rows import Granularity, MethodRow
from luigi_prune.errors import ConfigError

GROUP = "luigi_prune.methods"
log = logging.getLogger("luigi_prune")


def installed() -> Iterable[metadata.EntryPoint]:
    """Return the entry points of all installed packages."""
    return metadata.entry_points(group=GROUP)


class MethodTable(Mapping[str, MethodRow]):
    """The package's own rows followed by those of installed packages, by name."""

    def __init__(
        self,
        own: Mapping[str, MethodRow],
        discover: Callable[[], Iterable[metadata.EntryPoint]] = installed,
    ) -> None:
        self._own = own
        self._discover = discover
        self._found: dict[str, metadata.EntryPoint] | None = None
        self._loaded: dict[str, MethodRow] = {}
        self._warned: set[str] = set()

    def __getitem__(self, name: str) -> MethodRow:
        entries = self._entries()
        if name in self._own:
            return self._own[name]
        if name not in self._loaded:
            self._loaded[name] = _load(entries[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._entries()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names; those of packages that cannot be imported are left out, with a warning."""
        yield from self._own
        for name in self._entries():
            try:
                self[name]
            except ConfigError as error:
                if name not in self._warned:
                    self._warned.add(name)
                    log.warning("%s", error)
            else:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def origin(self, name: str) -> str:
        """Return the package that adds the method and its version, as in "my-package 1.2"; empty for our own."""
        return "" if name in self._own else _package(self._entries()[name])

    def _entries(self) -> dict[str, metadata.EntryPoint]:
        if self._found is None:
            found: dict[str, metadata.EntryPoint] = {}
            for entry in self._discover():
                first = found.setdefault(entry.name, entry)
                if entry.name in self._own or first.value != entry.value:
                    other = "luigi_prune" if entry.name in self._own else _package(first)
                    raise ConfigError(f"method {entry.name!r} of {_package(entry)} has the name of one of {other}")
            self._found = found
        return self._found


class ShortNames(Mapping[str, str]):
    """Short name -> name, for every method of a table."""

    def __init__(self, table: MethodTable, own: Mapping[str, MethodRow]) -> None:
        self._table = table
        self._own = {row.short: row.name for row in own.values()}
        self._all: dict[str, str] | None = None

    def __getitem__(self, short: str) -> str:
        if short in self._own:
            return self._own[short]
        if short in self._table:  # a full name: no reason to import every package for its short one
            raise KeyError(short)
        return self._names()[short]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> dict[str, str]:
        if self._all is None:
            names: dict[str, str] = {}
            for name, row in self._table.items():
                if names.setdefault(row.short, name) != name or (row.short != name and row.short in self._table):
                    other = names[row.short] if names[row.short] != name else row.short
                    package = self._table.origin(name)
                    raise ConfigError(
                        f"method {name!r} of {package}: its short name {row.short!r} is that of {other!r}"
                    )
                names[row.short] = name
            self._all = names
        return self._all


def _load(entry: metadata.EntryPoint) -> MethodRow:
    """Return the row that an entry point names; raises ConfigError, naming the package, for whatever goes wrong."""
    where = f"method {entry.name!r} of {_package(entry)} ({entry.value})"
    try:
        row = entry.load()
    except Exception as error:  # whatever a foreign module raises when it is imported
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{where} cannot be used: {type(error).__name__}: {reason}") from error
    if not isinstance(row, MethodRow):
        raise ConfigError(f"{where} cannot be used: it is a {type(row).__name__}, not a MethodRow")
    if row.name != entry.name:
        raise ConfigError(f"{where} cannot be used: its row is called {row.name!r}")
    if row.granularity not in get_args(Granularity):
        raise ConfigError(f"{where} cannot be used: granularity {row.granularity!r} is not known")
    return row


def _package(entry: metadata.EntryPoint) -> str:
    package = entry.dist
    return f"{package.name} {package.version}" if package is not None else entry.value.partition(":")[0]
