"""`logs [EXPERIMENT] JOB`: a job's output so far or as it is written, over attempts and requeues."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from luigi_prune.commands.job_logs import JobLog, find_log, known_logs
from luigi_prune.commands.plan import reports_of
from luigi_prune.errors import ConfigError
from luigi_prune.execution.backends import locate_jobs
from luigi_prune.workflow.job_task import JobTask, job_tasks
from luigi_prune.workflow.settings import default_directories

_PAUSE = 0.5  # seconds between polls
_SEARCH_EVERY = 10.0  # seconds between searches of the results folder for a result of unknown path


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("logs", help="print a job's output; --follow: until its result exists")
    parser.add_argument(
        "what",
        nargs="+",
        metavar="[EXPERIMENT] JOB",
        help="key or its start, title or a part of it, job id, or path; an experiment file alone lists its jobs",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="continue until the result exists")
    parser.add_argument("-n", "--lines", type=int, metavar="N", help="start N lines before the end")
    parser.add_argument(
        "--results", metavar="FOLDER", help="results (default: those of EXPERIMENT, else of luigi.cfg, ./data/results)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the log, and with --follow what is appended."""
    if options.lines is not None and options.lines < 0:
        raise ConfigError(f"--lines: expected at least 0, got {options.lines}")
    words, tasks = _experiment(options.what)
    results = Path(options.results or (tasks[0].results if tasks else default_directories().results))
    keys = {task.key[:12] for task in tasks} if tasks else None
    if not words:
        return _list(results, {task.key[:12]: task for task in tasks})
    log = find_log(results, " ".join(words), keys)
    tail = Tail(log.path)
    start_log = StartLog(log)
    text, early = tail.read(unfinished=not options.follow), start_log.read(unfinished=not options.follow)
    _print(_last(text or early, options.lines))
    if options.follow:
        _follow(results, log, tail, start_log)
    elif not text and not early:
        print(f"{log.name} has no output yet: {_state(log) or 'it runs'}", file=sys.stderr)
    return 0


def _experiment(words: list[str]) -> tuple[list[str], list[JobTask]]:
    """Return the words after an experiment file, and the tasks of its experiments; no tasks if none is named."""
    if Path(words[0]).suffix.lower() not in (".yaml", ".yml", ".json"):
        return words, []
    return words[1:], list(job_tasks(*reports_of(words[0])))


def _list(results: Path, tasks: dict[str, JobTask]) -> int:
    """Print the jobs of an experiment that have a log or were submitted, and where those are that have not ended."""
    known = [log for log in known_logs(results) if log.key in tasks]
    if not known:
        raise ConfigError(f"{results}: no job logs of this experiment here; --results names another folder")
    places = locate_jobs(tasks[log.key].path for log in known)
    for log in known:
        path = tasks[log.key].path
        state = "done" if path.exists() else places[path].text if path in places else "not done"
        print(f"{log.key}  {log.name}: {state}")
    return 0


class Tail:
    """Reads the lines appended to a file, which may not exist yet, be truncated, or be replaced."""

    def __init__(self, path: Path):
        self.path = path
        self._position = 0
        self._inode = 0

    def read(self, unfinished: bool = False) -> str:
        """Return the lines added since the last call; an unfinished last line only if `unfinished`."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._position:
                    self._position, self._inode = 0, status.st_ino
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return ""
        end = len(data) if unfinished else data.rfind(b"\n") + 1
        self._position += end
        return data[:end].decode(errors="replace")


class StartLog:
    """Output of the cluster and of the newest job's start: why it has no log of its own, or why it was killed."""

    def __init__(self, log: JobLog):
        self._submitted, self._remote = log.submitted, log.remote
        self._tails: dict[Path, Tail] = {}

    def read(self, unfinished: bool = False) -> str:
        """Return the lines added since the last call."""
        if self._submitted is None or self._remote is None:
            return ""
        self._submitted = self._submitted.newest()
        path, noise = self._submitted.start_log, self._remote.noise
        lines = self._tails.setdefault(path, Tail(path)).read(unfinished).splitlines(keepends=True)
        return "".join(line for line in lines if not (noise and line.startswith(noise)))


def _follow(results: Path, log: JobLog, tail: Tail, start_log: StartLog) -> None:
    """Print lines as they are added to a log and to the start log, until the result exists."""
    output, searched, state = log.output, float("-inf"), ""
    while True:
        if output is None and time.monotonic() - searched >= _SEARCH_EVERY:
            output, searched = _search(results, log.key), time.monotonic()
        finished = output is not None and output.exists()
        if finished:
            time.sleep(_PAUSE)  # for the last lines
        text = tail.read(unfinished=finished)
        _print(text)
        _print(start_log.read(unfinished=finished))
        if finished:
            return
        if not text and (now := _state(log)) != state:
            state = now
            if state:
                print(f"{log.name}: {state}", file=sys.stderr, flush=True)
        time.sleep(_PAUSE)


def _state(log: JobLog) -> str:
    """Return the place of a job that waits in a queue or has ended; "" if it runs or is unknown."""
    place = locate_jobs([log.output]).get(log.output) if log.output else None
    return "" if place is None or place.running else place.text


def _search(results: Path, key: str) -> Path | None:
    """Return the path of the result with this key, found by its name or that of a hidden file beside it."""
    beside = re.compile(rf"\.(?P<result>.+-{key}\.h5)\..+")
    for path in results.rglob(f"*{key}*"):
        if path.name in (key, f"report-{key}"):
            return path / ("results.h5" if path.name == key else "report.html")
        if match := beside.fullmatch(path.name):
            return path.with_name(match["result"])
        if path.name.endswith(f"-{key}.h5"):
            return path
    return None


def _last(text: str, count: int | None) -> str:
    if count is None:
        return text
    return "".join(deque(text.splitlines(keepends=True), maxlen=count))


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
