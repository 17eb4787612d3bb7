"""Importing foreign parts: the modules beside an experiment file, without confusing them with others of their name.

A finder in front of all others serves exactly the files whose hash is in the part's name, nothing else of that folder.
Two experiments in one process may have different modules of one name: `load` first puts those of its own part in place,
so that a module that is imported late, inside a function, is the right one, too.
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

from luigi_prune.errors import ConfigError
from luigi_prune.registry.sources import Sources, is_installed

_lock = threading.RLock()
_loaded: dict[tuple[str, str], Any] = {}  # digest and reference -> the object


class _Source(SourceFileLoader):
    """Compiles what it reads: bytecode is believed if time and size fit, which an edit within a second can keep."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder(MetaPathFinder):
    """Finds the modules of the units that are in place."""

    def __init__(self) -> None:
        self.contents: dict[str, tuple[Path, str]] = {}  # top-level name -> its file or folder, and the hash of that

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        unit, _ = self.contents.get(fullname.partition(".")[0], (None, ""))
        if unit is None:
            return None
        spec = PathFinder.find_spec(fullname, [str(unit.parent)] if path is None else path)
        if spec is not None and type(spec.loader) is SourceFileLoader and not is_installed(unit.parent):
            spec.loader = _Source(fullname, str(spec.origin))
        return spec


_finder = _Finder()


def load(reference: str, sources: Sources) -> Any:
    """Return the object at `reference` ("module:attribute"), importing its module from `sources`.

    Raises ConfigError, in one line, for whatever goes wrong in the foreign module.
    """
    module_name, _, attribute = reference.partition(":")
    with _lock:
        _put_in_place(sources)
        if (sources.digest, reference) not in _loaded:
            try:
                found: Any = importlib.import_module(module_name)
                for part in attribute.split("."):
                    found = getattr(found, part)
            except Exception as error:  # whatever a foreign module raises when it is imported
                reason = (str(error).splitlines() or [""])[0]
                raise ConfigError(f"{reference!r} cannot be imported: {type(error).__name__}: {reason}") from error
            _loaded[sources.digest, reference] = found
        return _loaded[sources.digest, reference]


def _put_in_place(sources: Sources) -> None:
    """Make the names of the units mean these files: modules of that name from elsewhere, or from before an edit, go."""
    contents = {name: (unit, sources.contents(name)) for name, unit in sources.units.items()}
    stale = [
        name
        for name, content in contents.items()
        if _finder.contents.get(name, content) != content or not _is_at(sys.modules.get(name), sources.units[name])
    ]
    _finder.contents.update(contents)
    if stale:  # all of them: those that did not change may have imported the others
        for name in [name for name in sys.modules if name.partition(".")[0] in contents]:
            del sys.modules[name]
        importlib.invalidate_caches()
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _is_at(module: ModuleType | None, unit: Path) -> bool:
    """Return whether a module, if it is there, was imported from `unit`."""
    if module is None:
        return True
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place is not None and (Path(place) == unit or Path(place).parent == unit) for place in places)
