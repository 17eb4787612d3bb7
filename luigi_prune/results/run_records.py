"""Records of runs in a results folder, from which a page can show runs of any driver.

    <results>/runs/<experiment>-<key>.tasks.json     all tasks of an experiment, written once by the first driver
    <results>/runs/<host>-<pid>-<start>.news.json    the state of one driver, rewritten every few seconds
    <results>/runs/<key>.retry                       a request that a driver run a failed task again

Paths in records are relative to the results folder; those of inputs elsewhere are absolute.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

TASKS, NEWS, RETRY = ".tasks.json", ".news.json", ".retry"
NEWS_SECONDS = 10.0  # most seconds between two news of a driver
_KEEP_DAYS = 30  # news of ended drivers
_REQUEST_SECONDS = 600  # after which nobody takes a request any more
_KEY = re.compile(r"[0-9a-f]{64}")


class _Record(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)  # a number that is none would pass into all that is computed of it


class RecordedTask(_Record):
    """A task of an experiment; `inputs` are places in the experiment's list of tasks."""

    family: str
    key: str
    title: str
    path: str
    log: str = ""
    curves: str = ""  # folder of the TensorBoard logs of a training
    method: str = ""
    keep_ratio: float | None = None
    net: int | None = None
    repetition: int | None = None
    test_set: str = ""
    inputs: tuple[int, ...] = ()


class RecordedExperiment(_Record):
    """An experiment with all its tasks, inputs first; the last one is the report."""

    name: str
    key: str  # of the report
    dataset: str
    network: str
    labels: dict[str, str]  # of the methods, in the order of the file
    keep_ratios: tuple[float, ...]
    command: str  # that runs the experiment again
    config: str = ""  # the experiment file in it, "" in a record of an earlier version
    folder: str = ""  # and the working directory
    smoke: bool = False
    settings: dict[str, Any]
    tasks: tuple[RecordedTask, ...]


class TaskNews(_Record):
    """What a driver last heard of a task's job."""

    message: str = ""
    fraction: float = 0.0
    since: float = 0.0  # time of the start, of the submission or of the failure
    left: float | None = None  # estimated seconds


class DriverNews(_Record):
    """The state of a driver."""

    host: str
    pid: int
    backend: str
    slots: int
    command: str
    started: float
    reports: tuple[str, ...] = ()  # keys of the experiments' reports
    ended: float | None = None
    to_do: int = 0
    done: int = 0
    estimate: float | None = None  # seconds until all tasks are done
    running: dict[str, TaskNews] = {}  # by key
    queue: dict[str, TaskNews] = {}
    failed: dict[str, TaskNews] = {}


def runs_folder(results: str | Path) -> Path:
    """Return the folder of the records."""
    return Path(results) / "runs"


def experiment_path(results: str | Path, name: str, key: str) -> Path:
    """Return the path of an experiment's record."""
    return runs_folder(results) / f"{name}-{key[:12]}{TASKS}"


def news_path(results: str | Path, news: DriverNews) -> Path:
    """Return the path of a driver's news."""
    host = re.sub(r"[^A-Za-z0-9._-]+", "-", news.host)
    return runs_folder(results) / f"{host}-{news.pid}-{news.started:.0f}{NEWS}"


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record whole, so that nobody else can change it; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    private = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:
            file.write(record.model_dump_json(exclude_defaults=True))
        os.replace(private, path)
    finally:
        private.unlink(missing_ok=True)


def parse_experiment(text: str | bytes) -> RecordedExperiment | None:
    """Return the experiment in a record; None if it is damaged."""
    try:
        experiment = RecordedExperiment.model_validate_json(text)
    except ValidationError:
        return None
    tasks = experiment.tasks
    sound = all(0 <= place < number for number, task in enumerate(tasks) for place in task.inputs)
    return experiment if tasks and sound else None


def parse_news(text: str | bytes) -> DriverNews | None:
    """Return the news in a record; None if it is damaged."""
    try:
        return DriverNews.model_validate_json(text)
    except ValidationError:
        return None


def request_retry(results: str | Path, key: str) -> None:
    """Ask drivers to run a failed task again; raises OSError."""
    path = runs_folder(results) / f"{key}{RETRY}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))  # a link would lead elsewhere


def take_retries(results: str | Path, keys: set[str]) -> list[str]:
    """Return the keys among `keys` whose retry is requested, and remove the requests."""
    taken = []
    try:
        names = os.listdir(runs_folder(results))
    except OSError:
        return []
    for name in names:
        key = name.removesuffix(RETRY)
        if name.endswith(RETRY) and _KEY.fullmatch(key) and key in keys:
            with contextlib.suppress(OSError):
                os.unlink(runs_folder(results) / name)
                taken.append(key)
    return taken


def remove_old_records(results: str | Path) -> None:
    """Remove news of drivers that ended long ago, and requests for retries that nobody has taken."""
    for ending, age in ((NEWS, _KEEP_DAYS * 86400), (RETRY, _REQUEST_SECONDS)):
        for path in runs_folder(results).glob(f"*{ending}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > age:
                    path.unlink()
