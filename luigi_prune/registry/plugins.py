"""Foreign parts: entry points of installed packages, and import paths beside an experiment file or on the Python path.

    [project.entry-points."luigi_prune.methods"]     # likewise .networks, .datasets, .scores, ...
    MyNet = "my_package.methods:MY_NET"              # its name, and the path of its row, function or class

Names are read from the packages' metadata at the first look-up, never when luigi_prune is imported. Specs, and hence
keys, contain a foreign part as `name@digest`, its resolved name: the digest of its sources (`registry/sources.py`)
identifies the code wherever it lies, and a process raises an error if the sources differ from those planned with.
A broken package causes a warning when names are listed, and an error only when it is used.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry.importing import load
from luigi_prune.registry.row_reading import KindName, read_row
from luigi_prune.registry.rows import Family, MethodRow, import_path
from luigi_prune.registry.sources import DIGITS, Sources, gather

_PARTS = ("score", "allocation")
log = logging.getLogger("luigi_prune")
_folders: list[Path | None] = [None]  # of experiment files, searched for modules; None: only the Python path
_sources: dict[str, Sources] = {}  # by shortened digest


def look_in(folder: str | Path | None) -> None:
    """Add the folder of an experiment file to those searched for parts by this process."""
    if folder and (resolved := Path(folder).resolve()) not in _folders:
        _folders.insert(0, resolved)


def plain(name: str) -> str:
    """Return the name of a part without the digest of its sources, for people and paths."""
    return name.partition("@")[0]


def is_foreign(name: str) -> bool:
    """Return whether a resolved name is that of a foreign part."""
    return "@" in name


def sources_of(name: str) -> Sources | None:
    """Return the sources of a resolved name or path that this process has looked up; None for built-in parts."""
    return _sources.get(name.partition("@")[2])


def load_part(path: str) -> Any:
    """Return the object at the path of a foreign row, "module:attribute@digest"."""
    reference, _, digest = path.partition("@")
    return load(reference, _sources[digest])


def group_of(kind: str) -> str:
    """Return the entry-point group of a kind of parts."""
    return "luigi_prune.losses" if kind == "loss" else f"luigi_prune.{kind}s"


def entry_points_of(group: str, noun: str, builtin: Iterable[str] = ()) -> dict[str, metadata.EntryPoint]:
    """Return the entry points of a group by name; raises ConfigError for a name of two packages or of a built-in."""
    return unique(metadata.entry_points(group=group), noun, builtin)


def unique(
    candidates: Iterable[metadata.EntryPoint], noun: str, builtin: Iterable[str]
) -> dict[str, metadata.EntryPoint]:
    """Return entry points by name, the same one only once; raises ConfigError like `entry_points_of`."""
    taken = frozenset(builtin)
    entries: dict[str, metadata.EntryPoint] = {}
    for entry in candidates:
        first = entries.setdefault(entry.name, entry)
        if entry.name in taken or first.value != entry.value:
            other = "luigi_prune" if entry.name in taken else package_of(first)
            raise ConfigError(f"{noun} {entry.name!r} of {package_of(entry)} has the same name as one of {other}")
    return entries


class PartTable(Mapping[str, Any]):
    """The rows of one kind by name: built-in rows, those of installed packages, then members of families.

    Members of families and resolved names of foreign parts ("name@digest") are valid keys, too, but not iterated over.
    """

    def __init__(
        self,
        kind: KindName,
        builtin: Mapping[str, Any],
        discover: Callable[[], Iterable[metadata.EntryPoint]] | None = None,
        families: Sequence[Family[Any]] = (),
    ) -> None:
        self.kind, self._builtin, self.families = kind, builtin, families
        self._discover = discover or (lambda: metadata.entry_points(group=group_of(kind)))
        self._entries: dict[str, metadata.EntryPoint] | None = None
        self._resolved: dict[str, Any] = {}  # resolved name -> row
        self._names: dict[str, str] = {}  # name of an entry point -> resolved name
        self._warned: set[str] = set()
        self._members: dict[str, Any] = {}  # name -> row of a family

    def __getitem__(self, name: str) -> Any:
        if name in self._builtin:
            self.entries.get(name)  # raises for duplicate names
            return self._builtin[name]
        if name in self._resolved:
            return self._resolved[name]
        if name not in self.entries and (row := self._member(name)) is not None:
            return row
        if is_foreign(name):
            return self._row_of_resolved(name)
        if name not in self.entries:
            raise KeyError(name)
        return self._resolved[self.resolve(name)]

    def __contains__(self, name: object) -> bool:
        if name in self._builtin or name in self._resolved or name in self.entries:
            return True
        try:
            return isinstance(name, str) and self._member(name) is not None
        except ConfigError:
            return False

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names; those of broken packages are skipped with a warning."""
        yield from self._builtin
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

    def resolve(self, name: str, folder: Path | None = None) -> str:
        """Return the resolved name, as used in specs: that of a built-in part unchanged, a foreign one with its digest.

        `folder`: searched first for the module of an import path. Raises ConfigError for a part that cannot be used,
        KeyError for an unknown name.
        """
        if name in self._builtin or is_foreign(name):
            return name
        if name in self.entries:
            if name not in self._names:
                self._names[name] = self._resolve_entry(self.entries[name])
            return self._names[name]
        if self._member(name) is not None:
            return name
        if ":" in name:
            return self._resolve_path(name, name, folder)
        raise KeyError(name)

    @property
    def choices(self) -> list[str]:
        """The names to suggest: all of `__iter__` and the well-known ones of families."""
        return [*dict.fromkeys([*self, *(name for family in self.families for name in family.names)])]

    @property
    def entries(self) -> dict[str, metadata.EntryPoint]:
        """The entry points by name."""
        if self._entries is None:
            self._entries = unique(self._discover(), self.kind, self._builtin)
        return self._entries

    def _member(self, name: str) -> Any:
        """Return the row of a family's member, None if no family has such names.

        Raises ConfigError for a name of a family's form whose numbers no member has.
        """
        if name not in self._members:
            for family in self.families:
                if match := re.fullmatch(family.pattern, name):
                    try:
                        self._members[name] = family.row_of(match)
                    except ConfigError as error:
                        spoken = self.kind.replace("dataset", "data set")
                        raise ConfigError(f"{name!r} is not a {spoken}: {error}") from None
                    break
            else:
                return None
        return self._members[name]

    def _resolve_entry(self, entry: metadata.EntryPoint) -> str:
        where = f"{self.kind} {entry.name!r} of {package_of(entry)} ({entry.value})"
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
        try:
            resolved = self._resolve_path(entry.name, entry.value, None, package)
        except ConfigError as error:
            raise ConfigError(f"{where} cannot be used: {error}") from None
        row = self._resolved[resolved]
        if self.kind == "method" and row.name != entry.name:
            raise ConfigError(f"{where} cannot be used: its row is called {row.name!r}")
        return resolved

    def _resolve_path(self, name: str, reference: str, folder: Path | None, package: str = "") -> str:
        """Read and store the row at `reference`; return `name` with the digest of its sources."""
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
        self._resolved[f"{name}@{digest}"] = dataclasses.replace(row, **functions)
        return f"{name}@{digest}"

    def _function(self, kind: str, function: Any) -> str:
        """Return the name or import path of a score or allocation; raises ConfigError for an unknown name."""
        name = import_path(function)
        entries = entry_points_of(group_of(kind), kind, known := {getattr(row, kind) for row in self._builtin.values()})
        if ":" not in name and name not in known and name not in entries:
            raise ConfigError(f"there is no {kind} {name!r}{nearest(name, [*known, *entries])}")
        return entries[name].value if name in entries else name

    def _row_of_resolved(self, resolved: str) -> Any:
        """Return the row of a name resolved by another process; raises ConfigError if its sources have changed."""
        name = plain(resolved)
        reason = ""
        for folder in (None,) if name in self.entries else tuple(_folders):
            self._names.pop(name, None)
            try:
                if self.resolve(name, folder) == resolved:
                    return self._resolved[resolved]
                reason = "its source files have changed since this run was planned; run again"
            except (ConfigError, KeyError) as error:
                reason = reason or str(error)
        raise ConfigError(f"{self.kind} {name!r}: {reason}")


def _functions_of(row: Any) -> tuple[str, ...]:
    return _PARTS if isinstance(row, MethodRow) else ("path",)


def package_of(entry: metadata.EntryPoint) -> str:
    """Return name and version of the package of an entry point."""
    package = entry.dist
    return f"{package.name} {package.version}" if package is not None else entry.value.partition(":")[0]
