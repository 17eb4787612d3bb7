"""`show`, `verify` and `gc`: inspect, check and clean up result files."""

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
from shlex import quote
from typing import Any

from rich.console import Console
from rich.table import Table

from luigi_prune.commands.confirmation import is_confirmed
from luigi_prune.commands.plan import reports_of
from luigi_prune.errors import ConfigError, DamagedResult
from luigi_prune.execution.backends import remote_jobs
from luigi_prune.results.hdf5_file import read_about, read_result, set_aside, verify
from luigi_prune.workflow.job_task import job_tasks

_TEMPORARY = re.compile(r"\.(?P<result>.+)\.tmp\.(?P<host>.+)\.(?P<process>\d+)\.[0-9a-f]+")
_FAILURE = re.compile(r"\.(?P<result>.+)\.failed")
_CHECKPOINT = re.compile(r"\.(?P<result>.+)\.checkpoint")
_DAY = 86400.0


def add_to(commands: Any) -> None:
    """Add the parsers."""
    parser = commands.add_parser("show", help="print spec, provenance and contents of a result file")
    parser.add_argument("target", help="result file (.h5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=show)

    parser = commands.add_parser("verify", help="check every byte of the results of a folder or an experiment")
    parser.add_argument("where", nargs="?", default="./data/results", help="folder, result or experiment file")
    parser.add_argument(
        "--set-aside", action="store_true", help="rename damaged files, so that they are computed again"
    )
    parser.set_defaults(run=verify_results)

    parser = commands.add_parser("gc", help="remove leftovers of killed runs (asks first)")
    parser.add_argument("folder", nargs="?", default="./data/results")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=collect)


def show(options: argparse.Namespace) -> int:
    """Print spec, provenance and contents of one result file."""
    path = Path(options.target)
    if path.is_dir():
        command = f"python -m luigi_prune verify {quote(str(path))}"
        raise ConfigError(f"{path}: is a folder, expected a result file (.h5); `{command}` checks all in it")
    if not path.exists():
        raise ConfigError(f"{path}: no such file")
    if path.suffix in (".yaml", ".yml"):
        command = f"python -m luigi_prune plan {quote(str(path))}"
        raise ConfigError(f"{path}: is no result file (.h5); `{command}` shows an experiment")
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
    if options.json:
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


def verify_results(options: argparse.Namespace) -> int:
    """Check results byte by byte; the exit code is 1 if one is damaged or missing."""
    console = Console(highlight=False)
    where = Path(options.where)
    paths = list(_of_folder(where)) if where.is_dir() or where.suffix == ".h5" else _of_experiment(options.where)
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
            aside = f", set aside as {set_aside(path).name}" if options.set_aside else ""
            console.print(f"damaged  {path}: {damage.reason}{aside}", soft_wrap=True)
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 1 if counts["damaged"] or counts["missing"] else 0


def _of_experiment(config: str) -> list[Path]:
    return [task.path for task in job_tasks(*reports_of(config)) if task.path.suffix == ".h5"]


def _of_folder(where: Path) -> Iterator[Path]:
    """Yield the results in a folder, and the paths of their inputs that no longer exist there."""
    paths = [where] if not where.is_dir() else sorted(p for p in where.rglob("*.h5") if not p.name.startswith("."))
    yield from paths
    known = {path.resolve() for path in paths}
    for path in paths:
        try:
            parents = read_about(path)["provenance"].get("parents", {})
        except (OSError, KeyError, ValueError):
            continue  # damaged, which its check reports
        for parent in parents.values():
            source = (path.parent / parent["path"]).resolve()
            if source not in known:
                known.add(source)
                yield source


def collect(options: argparse.Namespace) -> int:
    """Remove files and folders that are no longer needed."""
    folder = Path(options.folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}")
    console = Console(highlight=False)
    leftovers = [
        (path, why) for path in sorted(folder.rglob(".*")) if path.is_file() and (why := _reason_to_remove(path))
    ]
    leftovers += [leftover for remote in remote_jobs() for leftover in remote.leftovers(folder)]
    for path, why in leftovers:
        console.print(f"{path}  ({why}, {_size(path) / 1e6:.1f} MB)", soft_wrap=True)
    if not leftovers:
        console.print("Nothing to remove.")
        return 0
    if not options.yes and not is_confirmed(f"Remove these {len(leftovers)} files and folders?"):
        console.print("Nothing was removed.")
        return 0
    for path, _ in leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    console.print(f"{len(leftovers)} files and folders removed.")
    return 0


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(inner.stat().st_size for inner in (path.rglob("*") if path.is_dir() else (path,)) if inner.is_file())


def _reason_to_remove(path: Path) -> str:
    """Return why a file is no longer needed, or ""."""
    if match := _FAILURE.fullmatch(path.name):
        return "failure of a job whose result exists" if path.with_name(match["result"]).exists() else ""
    if match := _CHECKPOINT.fullmatch(path.name):
        return "checkpoint of a finished training" if path.with_name(match["result"]).exists() else ""
    if match := _TEMPORARY.fullmatch(path.name):
        if match["host"] == socket.gethostname():
            return "" if _is_alive(int(match["process"])) else "its writer has ended"
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
