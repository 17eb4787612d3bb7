"""The table of backends: our own, and those of installed packages (entry points of the group `luigi_prune.backends`).

    [project.entry-points."luigi_prune.backends"]
    pbs = "my_package:PBS"        # the backend's name, and where its BackendRow stands

A row is strings: the modules of a backend are imported when it is used, those of a package when its row is.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.execution.job import Backend, ComputeSettings
from luigi_prune.execution.remote_jobs import JobPlace, RemoteJobs
from luigi_prune.execution.slots import Slots

GROUP = "luigi_prune.backends"
AUTO = "auto"  # local if several jobs fit this machine, else inline
log = logging.getLogger("luigi_prune")


@dataclass(frozen=True)
class BackendRow:
    """A backend, by where its parts stand ("module:name")."""

    name: str  # in [compute] backend=, of its sections in luigi.cfg and of its folder below the results
    backend: str  # class: Backend, called with ComputeSettings
    settings: str = ""  # function (sections, ComputeSettings) -> ComputeSettings.own; raises ConfigError
    jobs: str = ""  # class: RemoteJobs, called without arguments; "" if jobs end with their driver


_OWN = (
    BackendRow("inline", "luigi_prune.execution.inline:InlineBackend"),
    BackendRow("local", "luigi_prune.execution.local.local_backend:LocalBackend"),
    BackendRow(
        "slurm",
        "luigi_prune.execution.slurm.slurm_backend:SlurmBackend",
        settings="luigi_prune.execution.slurm.options:from_luigi_cfg",
        jobs="luigi_prune.execution.slurm.slurm_jobs:SlurmJobs",
    ),
)
OWN = {row.name: row for row in _OWN}


def entry_points(group: str = GROUP) -> Iterable[metadata.EntryPoint]:
    """Return the entry points of all installed packages."""
    return metadata.entry_points(group=group)


def names() -> list[str]:
    """Return the names of all backends; imports none of them. Raises ConfigError if two share a name."""
    return [*OWN, *_foreign()]


def row(name: str) -> BackendRow:
    """Return a backend's row; raises ConfigError."""
    if name in OWN:
        return OWN[name]
    if (entry := _foreign().get(name)) is None:
        raise ConfigError(f"luigi.cfg: [compute] backend: {name!r} is not a backend{nearest(name, (AUTO, *names()))}")
    where = f"backend {name!r} of {_package(entry)} ({entry.value}) cannot be used"
    try:
        found = entry.load()
    except Exception as error:  # whatever a foreign module raises when it is imported
        raise ConfigError(f"{where}: {_first_line(error)}") from error
    if not isinstance(found, BackendRow):
        raise ConfigError(f"{where}: expected a BackendRow, got a {type(found).__name__}")
    if found.name != name:
        raise ConfigError(f"{where}: its row is called {found.name!r}")
    return found


def own_settings(compute: ComputeSettings, sections: Mapping[str, Mapping[str, str]]) -> Any:
    """Return what the chosen backend makes of its sections of luigi.cfg, None if it has no settings.

    `sections` are [<its name>] and [<its name>.<...>]: name -> key -> text. Raises ConfigError.
    """
    if compute.backend == AUTO or not (place := row(compute.backend).settings):
        return None
    return _load(place, compute.backend)(sections, compute)


def choose(settings: ComputeSettings) -> Backend:
    """Return the backend that the settings ask for; raises ConfigError."""
    name = settings.backend
    if name == AUTO:
        slots = Slots(settings)
        name = "local" if slots.total > 1 or slots.widest > 1 else "inline"
    backend: Backend = _load(row(name).backend, name)(settings)
    if backend.name != name:  # its folder and its sections go by that name
        backend.close()
        raise ConfigError(f"backend {name!r} cannot be used: its class is called {backend.name!r}")
    return backend


def remote_jobs() -> list[RemoteJobs]:
    """Return what can be asked of each backend whose jobs outlive their driver.

    A foreign one that cannot be imported is left out, with a warning: commands work without it.
    """
    found = []
    for name in names():
        try:
            if place := row(name).jobs:
                found.append(_load(place, name)())
        except ConfigError as error:
            log.warning("%s", error)
    return found


def on_their_way(outputs: Iterable[Path]) -> dict[Path, JobPlace]:
    """Return where the jobs are that make `outputs`, of all backends and drivers; without those of finished results."""
    paths = list(outputs)
    return {path: place for remote in remote_jobs() for path, place in remote.where(paths).items()}


@cache
def _foreign() -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for entry in entry_points():
        first = found.setdefault(entry.name, entry)
        if entry.name in (*OWN, AUTO) or first.value != entry.value:
            other = "luigi_prune" if entry.name in (*OWN, AUTO) else _package(first)
            raise ConfigError(f"backend {entry.name!r} of {_package(entry)} has the name of one of {other}")
    return found


def _load(place: str, name: str) -> Any:
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a foreign module, or a library that is not installed
        raise ConfigError(f"backend {name!r}: {place} cannot be imported: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _package(entry: metadata.EntryPoint) -> str:
    package = entry.dist
    return f"{package.name} {package.version}" if package is not None else entry.value.partition(":")[0]
