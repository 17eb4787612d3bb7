"""Short names of methods, of this package and of installed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from luigi_prune.errors import ConfigError
from luigi_prune.registry.plugins import PartTable, is_foreign, package_of
from luigi_prune.registry.rows import MethodRow


class ShortNames(Mapping[str, str]):
    """Short name -> name of every method of a table."""

    def __init__(self, table: PartTable, builtin: Mapping[str, MethodRow]) -> None:
        self._table = table
        self._builtin = {row.short: row.name for row in builtin.values()}
        self._all: dict[str, str] | None = None

    def __getitem__(self, short: str) -> str:
        if short in self._builtin:
            return self._builtin[short]
        if ":" in short or is_foreign(short) or short in self._table:  # skips loading every package
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
                        f"method {name!r} of {package_of(self._table.entries[name])}: its short name {row.short!r} is "
                        f"already that of {other!r}"
                    )
                names[row.short] = name
            self._all = names
        return self._all
