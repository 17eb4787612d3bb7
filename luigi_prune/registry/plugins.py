"""Parts from outside: entry points of installed packages, and import paths beside an experiment file or on the path.

    [project.entry-points."luigi_prune.methods"]     # likewise .networks, .datasets, .scores, ...
    MyNet = "my_package.methods:MY_NET"              # its name, and where its row, function or class stands

Names are read from the packages' metadata when one is first looked up, never when luigi_prune is imported. In specs,
and so in keys, a foreign part is called `name@digest`: the digest is that of its sources (`catalogue/sources.py`), so a
name means one content, wherever it lies, and a process that finds other sources than those that were planned refuses.
A package that cannot be used is a warning when names are listed, and an error only for whoever uses it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry.importing import load
from luigi_prune.registry.row_reading import KindName, read_row
from luigi_prune.registry.rows import MethodRow, import_path
from luigi_prune.registry.sources import DIGITS, Sources, gather

_PARTS = ("score", "allocation")
log = logging.getLogger("luigi_prune")
_folders: list[Path | None] = [None]  # where modules may lie beside an experiment file; None: only the Python path
_sources: dict[str, Sources] = {}  # by shortened digest


def look_in(folder: str | Path | None) -> None:
    """Let parts be found in the folder of an experiment file, in this process."""
    if folder and (place := Path(folder).resolve()) not in _folders:
        _folders.insert(0, place)


def plain(name: str) -> str:
    """Return how a person calls a part: without the digest of its sources."""
    return name.partition("@")[0]


def is_foreign(name: str) -> bool:
    """Return whether a settled name is that of a part from outside."""
    return "@" in name


def sources_of(name: str) -> Sources | None:
    """Return the sources of a settled name or path that this process has looked up; None for our own parts."""
    return _sources.get(name.partition("@")[2])


def load_part(path: str) -> Any:
    """Return the object at a foreign row's path, "module:attribute@digest"."""
    reference, _, digest = path.partition("@")
    return load(reference, _sources[digest])


def group_of(kind: str) -> str:
    """Return the entry-point group of a kind of parts."""
    return "luigi_prune.losses" if kind == "loss" else f"luigi_prune.{kind}s"


def entry_points(group: str, noun: str, own: Iterable[str] = ()) -> dict[str, metadata.EntryPoint]:
    """Return the entry points of a group by name; raises ConfigError for a name that two packages, or we, have."""
    return unique(metadata.entry_points(group=group), noun, own)


def unique(found: Iterable[metadata.EntryPoint], noun: str, own: Iterable[str]) -> dict[str, metadata.EntryPoint]:
    """Return entry points by name; one that is found twice on the path is one."""
    taken = frozenset(own)
    entries: dict[str, metadata.EntryPoint] = {}
    for entry in found:
        first = entries.setdefault(entry.name, entry)
        if entry.name in taken or first.value != entry.value:
            other = "luigi_prune" if entry.name in taken else _package(first)
            raise ConfigError(f"{noun} {entry.name!r} of {_package(entry)} has the name of one of {other}")
    return entries


class PartTable(Mapping[str, Any]):
    """The rows of one kind by name: the package's own, then those of installed packages.

    Settled names of foreign parts ("name@digest") lead to rows, too, but are not iterated over.
    """

    def __init__(
        self,
        kind: KindName,
        own: Mapping[str, Any],
        discover: Callable[[], Iterable[metadata.EntryPoint]] | None = None,
    ) -> None:
        self.kind, self._own = kind, own
        self._discover = discover or (lambda: metadata.entry_points(group=group_of(kind)))
        self._entries: dict[str, metadata.EntryPoint] | None = None
        self._settled: dict[str, Any] = {}
        self._names: dict[str, str] = {}  # of an entry point -> settled
        self._warned: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        if name in self._own:
            self.entries.get(name)  # two packages of one name are an error for everybody
            return self._own[name]
        if name in self._settled:
            return self._settled[name]
        if is_foreign(name):
            return self._find_again(name)
        if name not in self.entries:
            raise KeyError(name)
        return self._settled[self.settle(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._settled or name in self.entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names; those of packages that cannot be used are left out, with a warning."""
        yield from self._own
        for name in self.entries:
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

    def settle(self, name: str, folder: Path | None = None) -> str:
        """Return the name that stands in specs: our own as it is, that of a foreign part with its digest.

        `folder`: where the module of an import path is looked for first. Raises ConfigError, KeyError for a name that
        is neither.
        """
        if name in self._own or is_foreign(name):
            return name
        if name in self.entries:
            if name not in self._names:
                self._names[name] = self._settle_entry(self.entries[name])
            return self._names[name]
        if ":" in name:
            return self._settle(name, name, folder)
        raise KeyError(name)

    @property
    def entries(self) -> dict[str, metadata.EntryPoint]:
        """The entry points by name."""
        if self._entries is None:
            self._entries = unique(self._discover(), self.kind, self._own)
        return self._entries

    def _settle_entry(self, entry: metadata.EntryPoint) -> str:
        where = f"{self.kind} {entry.name!r} of {_package(entry)} ({entry.value})"
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
        try:
            settled = self._settle(entry.name, entry.value, None, package)
        except ConfigError as error:
            raise ConfigError(f"{where} cannot be used: {error}") from None
        row = self._settled[settled]
        if self.kind == "method" and row.name != entry.name:
            raise ConfigError(f"{where} cannot be used: its row is called {row.name!r}")
        return settled

    def _settle(self, name: str, reference: str, folder: Path | None, package: str = "") -> str:
        """Read the row at `reference` and keep it under `name` with the digest of all that it names."""
        row = read_row(self.kind, reference, folder)
        if isinstance(row, MethodRow):
            score, allocation = (self._function(field, getattr(row, field)) for field in _PARTS)
            row = dataclasses.replace(row, score=score, allocation=allocation)
        paths = [import_path(getattr(row, field)) for field in _functions_of(row)]
        modules = {path.partition(":")[0] for path in (reference, *paths) if ":" in path}
        sources = gather(sorted(m for m in modules if m.partition(".")[0] != "luigi_prune"), folder, package)
        digest = sources.digest[:DIGITS]
        _sources[digest] = sources
        functions = {f: f"{p}@{digest}" for f, p in zip(_functions_of(row), paths, strict=True) if ":" in p}
        self._settled[f"{name}@{digest}"] = dataclasses.replace(row, **functions)
        return f"{name}@{digest}"

    def _function(self, kind: str, function: Any) -> str:
        """Return the name or import path of a score or allocation; raises ConfigError for a name that nobody has."""
        name = import_path(function)
        entries = entry_points(group_of(kind), kind, known := {getattr(row, kind) for row in self._own.values()})
        if ":" not in name and name not in known and name not in entries:
            raise ConfigError(f"{name!r} is no {kind}{nearest(name, [*known, *entries])}")
        return entries[name].value if name in entries else name

    def _find_again(self, settled: str) -> Any:
        """Return the row of a name that another process has settled; raises ConfigError where its sources changed."""
        name = plain(settled)
        reason = ""
        for folder in (None,) if name in self.entries else tuple(_folders):
            self._names.pop(name, None)
            try:
                if self.settle(name, folder) == settled:
                    return self._settled[settled]
                reason = "its source files are not those that this was planned with; run again"
            except (ConfigError, KeyError) as error:
                reason = reason or str(error)
        raise ConfigError(f"{self.kind} {name!r}: {reason}")


def _functions_of(row: Any) -> tuple[str, ...]:
    return _PARTS if isinstance(row, MethodRow) else ("path",)


class ShortNames(Mapping[str, str]):
    """Short name -> name, for every method of a table."""

    def __init__(self, table: PartTable, own: Mapping[str, MethodRow]) -> None:
        self._table = table
        self._own = {row.short: row.name for row in own.values()}
        self._all: dict[str, str] | None = None

    def __getitem__(self, short: str) -> str:
        if short in self._own:
            return self._own[short]
        if ":" in short or is_foreign(short) or short in self._table:  # no reason to look at every package
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
                    raise ConfigError(
                        f"method {name!r} of {_package(self._table.entries[name])}: its short name {row.short!r} is "
                        f"that of {other!r}"
                    )
                names[row.short] = name
            self._all = names
        return self._all


def _package(entry: metadata.EntryPoint) -> str:
    package = entry.dist
    return f"{package.name} {package.version}" if package is not None else entry.value.partition(":")[0]
