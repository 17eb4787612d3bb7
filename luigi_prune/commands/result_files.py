"""`show`, `verify` and `gc`: what lies in a store."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from luigi_prune.commands.plan import reports_of
from luigi_prune.errors import ConfigError, DamagedResult
from luigi_prune.execution.backends import remote_jobs
from luigi_prune.results.hdf5_file import read_about, read_result, set_aside, verify
from luigi_prune.workflow.job_task import JobTask, walk

_TEMPORARY = re.compile(r"\.(?P<result>.+)\.tmp\.(?P<host>.+)\.(?P<process>\d+)\.[0-9a-f]+")
_CHECKPOINT = re.compile(r"\.(?P<result>.+)\.checkpoint")
_DAY = 86400.0


def add_to(commands: Any) -> None:
    """Add the parsers."""
    parser = commands.add_parser("show", help="spec, provenance and contents of a result file")
    parser.add_argument("target", help="result file (.h5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=show)

    parser = commands.add_parser("verify", help="check every byte of a store, or of what an experiment has")
    parser.add_argument("where", nargs="?", default="./data/results", help="folder, result or experiment file")
    parser.add_argument(
        "--set-aside", action="store_true", help="rename damaged files, so that they are computed again"
    )
    parser.set_defaults(run=check)

    parser = commands.add_parser("gc", help="remove what killed runs have left behind (asks first)")
    parser.add_argument("folder", nargs="?", default="./data/results")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=collect)


def show(given: argparse.Namespace) -> int:
    """Print what one result file says of itself."""
    path = Path(given.target)
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    result = read_result(path)
    contents = {
        name: f"{array.dtype} {list(array.shape)}" if array.ndim else array.item()
        for name, array in (result.arrays | {f"measured/{name}": a for name, a in result.measured.items()}).items()
    }
    about = {
        "file": str(path),
        "family": result.family,
        "key": result.key,
        "content_sha256": read_about(path)["content_sha256"],
        "spec": result.spec,
        "provenance": result.provenance,
        "meta": result.meta,
        "contents": contents,
    }
    if given.json:
        print(json.dumps(about, indent=2))
        return 0
    console = Console(highlight=False)
    for name in ("file", "family", "key", "content_sha256"):
        console.print(f"{name}: {about[name]}", soft_wrap=True)
    for name in ("spec", "provenance", "meta"):
        console.print(f"{name}:")
        console.print_json(data=about[name])
    table = Table("array", "what", box=None)
    for name, what in contents.items():
        table.add_row(name, str(what))
    console.print(table)
    return 0


def check(given: argparse.Namespace) -> int:
    """Check results byte by byte; the exit code is 1 where one is damaged."""
    console = Console(highlight=False)
    where = Path(given.where)
    paths = list(_of_folder(where)) if where.is_dir() or where.suffix == ".h5" else _of_experiment(given.where)
    counts = {"sound": 0, "damaged": 0, "missing": 0}
    for path in paths:
        try:
            verify(path)
            counts["sound"] += 1
        except FileNotFoundError:
            counts["missing"] += 1
            console.print(f"missing  {path}", soft_wrap=True)
        except DamagedResult as damage:
            counts["damaged"] += 1
            aside = f", set aside as {set_aside(path).name}" if given.set_aside else ""
            console.print(f"damaged  {path}: {damage.reason}{aside}", soft_wrap=True)
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 1 if counts["damaged"] else 0


def _of_experiment(config: str) -> list[Path]:
    tasks = walk(*reports_of(config))
    return [task.path for task in tasks if isinstance(task, JobTask) and task.path.suffix == ".h5"]


def _of_folder(where: Path) -> Iterator[Path]:
    """Yield the results in a folder, and the paths that they were made from and that are gone."""
    paths = [where] if where.is_file() else sorted(p for p in where.rglob("*.h5") if not p.name.startswith("."))
    yield from paths
    known = {path.resolve() for path in paths}
    for path in paths:
        try:
            parents = read_about(path)["provenance"].get("parents", {})
        except (OSError, KeyError, ValueError):
            continue  # damaged: its own check says so
        for parent in parents.values():
            place = (path.parent / parent["path"]).resolve()
            if place not in known:
                known.add(place)
                yield place


def collect(given: argparse.Namespace) -> int:
    """Remove what nobody will read any more."""
    folder = Path(given.folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder")
    console = Console(highlight=False)
    found = [(path, why) for path in sorted(folder.rglob(".*")) if path.is_file() and (why := _rubbish(path))]
    found += [leftover for remote in remote_jobs() for leftover in remote.leftovers(folder)]
    for path, why in found:
        console.print(f"{path}  ({why}, {_size(path) / 1e6:.1f} MB)", soft_wrap=True)
    if not found:
        console.print("Nothing to remove.")
        return 0
    if not given.yes and input(f"Remove these {len(found)} files and folders? [y/N] ").strip().lower() not in (
        "y",
        "yes",
    ):
        console.print("Nothing was removed.")
        return 0
    for path, _ in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    console.print(f"{len(found)} files and folders removed.")
    return 0


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(inner.stat().st_size for inner in (path.rglob("*") if path.is_dir() else (path,)) if inner.is_file())


def _rubbish(path: Path) -> str:
    """Return why a file is of no use any more, or ""."""
    if match := _CHECKPOINT.fullmatch(path.name):
        return "checkpoint of a finished training" if path.with_name(match["result"]).exists() else ""
    if match := _TEMPORARY.fullmatch(path.name):
        if match["host"] == socket.gethostname():
            return "" if _is_alive(int(match["process"])) else "its writer is gone"
        return "untouched for a day" if time.time() - path.stat().st_mtime > _DAY else ""
    return ""


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
