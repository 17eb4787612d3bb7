"""Backends that are closed after each test, and jobs to submit."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from listening import SLOW_SECONDS, wait_until

from luigi_prune.execution.job import ComputeSettings, Job
from luigi_prune.execution.local import local_backend
from luigi_prune.execution.local.fork_server import WarmServer
from luigi_prune.execution.local.local_backend import LocalBackend


@pytest.fixture(autouse=True)
def _job_functions_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def light_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests about processes: a fork server that need not import torch."""
    monkeypatch.setattr(
        local_backend,
        "WarmServer",
        functools.partial(WarmServer, preload=("luigi_prune.jobs", "luigi_prune.execution.local.child")),
    )


@pytest.fixture
def slow_server(light_server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A fork server that imports for `SLOW_SECONDS`."""
    (tmp_path / "slow_preload.py").write_text(f"import time; time.sleep({SLOW_SECONDS})")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(
        local_backend,
        "WarmServer",
        functools.partial(WarmServer, preload=("slow_preload", "luigi_prune.execution.local.child")),
    )


@pytest.fixture
def make_backend(tmp_path: Path) -> Iterator[Callable[..., LocalBackend]]:
    made: list[LocalBackend] = []

    def make(grace_seconds: float = 10.0, **settings: Any) -> LocalBackend:
        settings = {"device": "cpu", **settings}
        made.append(LocalBackend(ComputeSettings(**settings), grace_seconds=grace_seconds))
        return made[-1]

    yield make
    (tmp_path / "release").touch()
    for backend in made:
        backend.close()


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    def make(function: str, tag: str = "job", family: str = "Retrain", **request: Any) -> Job:
        return Job(
            function=f"job_functions:{function}",
            name=f"{function} {tag}",
            family=family,
            request={"folder": str(tmp_path), "tag": tag, **request},
            output=str(tmp_path / f"{tag}.h5"),
            log=str(tmp_path / "logs" / f"{tag}.log"),
        )

    return make


@pytest.fixture
def facts(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What a job's process noted, as soon as it has."""

    def read(tag: str = "job", rank: int = 0) -> dict[str, Any]:
        path = tmp_path / f"{tag}-{rank}.json"
        wait_until(path.exists)
        return json.loads(path.read_text())

    return read
