"""Provenance of results: versions, commit, host, process and time."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from luigi_prune import registry

_PACKAGES = ("luigi-prune", "luigi", "torch", "torchvision", "torchmetrics", "numpy", "scipy", "scikit-learn", "h5py")
_OPTIONAL = ("timm", "transformers")
COMMAND = "LUIGI_PRUNE_COMMAND"
"""Environment variable with the command line of the driver."""


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    installed = {"python": platform.python_version()}
    for package in (*_PACKAGES, *_OPTIONAL):
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package in _PACKAGES:
                installed[package] = "absent"
    return installed


def command() -> str:
    """Return the command line that the user began with: the driver's, if it has announced itself, else this process's.

    A job's own process is started as `python -c ...` by a fork server, or by a queueing system.
    """
    if COMMAND in os.environ:
        return os.environ[COMMAND]
    name = Path(sys.argv[0]).name if sys.argv else ""
    return "" if name.startswith("-") else name


def announce_command() -> None:
    """Have all processes that this one starts record its command line."""
    program, *arguments = sys.argv or [""]
    if program and not program.startswith("-"):
        os.environ.setdefault(COMMAND, shlex.join([Path(program).name, *arguments]))


@functools.cache
def commit() -> dict[str, Any]:
    """Return the commit of the package's checkout and whether it has uncommitted changes; {} without a checkout."""
    folder = Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return {}
    try:
        sha = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10)
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"commit": sha.stdout.strip(), "uncommitted_changes": bool(changes.stdout.strip())}


def foreign_parts(spec: str) -> dict[str, Any]:
    """Return the package and the SHA-256 of the files of every foreign part in a spec (JSON)."""
    names = sorted(set(re.findall(r'"([\w.:-]+@[0-9a-f]{16})"', spec)))
    sources = {name: registry.sources_of(name) for name in names}
    return {name: {"package": part.package, "files": dict(part.files)} for name, part in sources.items() if part}


def provenance(**more: Any) -> dict[str, Any]:
    """Return the provenance of a result computed now by this process, with `more` added unchanged."""
    return {
        "versions": versions(),
        "source": commit(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "process": os.getpid(),
        "command": command(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **more,
    }
