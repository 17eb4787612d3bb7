"""Import of foreign parts: modules beside an experiment file, kept apart from other modules of the same name.

A finder ahead of all others serves exactly the files whose hash is in the part's name, nothing else of that folder.
Two experiments in one process may have different modules of the same name: `load` activates those of its part first, so
that imports inside functions resolve correctly, too.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from luigi_prune.errors import ConfigError, reason_of
from luigi_prune.registry.sources import Sources, is_installed

_lock = threading.RLock()
_loaded: dict[tuple[str, str], Any] = {}  # digest and reference -> the object


class _Source(SourceFileLoader):
    """Compiles the source always: cached bytecode is matched by time and size, which a quick edit may not change."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder(MetaPathFinder):
    """Finds the modules of the active units."""

    def __init__(self) -> None:
        self.active: dict[str, tuple[Path, str]] = {}  # top-level name -> file or folder, and its hash

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        unit, _ = self.active.get(fullname.partition(".")[0], (None, ""))
        if unit is None:
            return None
        spec = PathFinder.find_spec(fullname, [str(unit.parent)] if path is None else path)
        if spec is not None and type(spec.loader) is SourceFileLoader and not is_installed(unit.parent):
            spec.loader = _Source(fullname, str(spec.origin))
        return spec


_finder = _Finder()


def load(reference: str, sources: Sources) -> Any:
    """Return the object at `reference` ("module:attribute"), importing its module from `sources`.

    Raises ConfigError, in one line, if the import fails for any reason.
    """
    module_name, _, attribute = reference.partition(":")
    with _lock:
        _activate(sources)
        if (sources.digest, reference) not in _loaded:
            try:
                target: Any = importlib.import_module(module_name)
                for part in attribute.split("."):
                    target = getattr(target, part)
            except Exception as error:  # importing a foreign module may raise anything
                raise ConfigError(f"{reference!r} cannot be imported: {reason_of(error)}") from error
            _loaded[sources.digest, reference] = target
        return _loaded[sources.digest, reference]


def _activate(sources: Sources) -> None:
    """Bind the units' names to these files; drop modules loaded under them from elsewhere or before an edit."""
    units = {name: (unit, sources.unit_digest(name)) for name, unit in sources.units.items()}
    stale = [
        name
        for name, unit in units.items()
        if _finder.active.get(name, unit) != unit or not _is_at(sys.modules.get(name), sources.units[name])
    ]
    _finder.active.update(units)
    if stale:  # drop all: unchanged modules may have imported the changed ones
        for name in [name for name in sys.modules if name.partition(".")[0] in units]:
            del sys.modules[name]
        importlib.invalidate_caches()
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _is_at(module: ModuleType | None, unit: Path) -> bool:
    """Return whether a module was imported from `unit`, or not at all."""
    if module is None:
        return True
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place is not None and (Path(place) == unit or Path(place).parent == unit) for place in places)
