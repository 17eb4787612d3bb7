"""A run at our luigid, which gives a task for every free slot in one message."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import luigi
import pytest
from luigi.rpc import RPCError

from luigi_prune.scheduling.batched_calls import BatchingClient
from luigi_prune.workflow.tasks import RunExperiment
from tests.experiments import write_experiment
from tests.web.sample import ask, served

NETS, SLOTS = 6, 4


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The methods called by every message to luigid."""
    sent: list[list[str]] = []
    fetch = BatchingClient._fetch

    def noted(self: Any, path: str, body: str) -> str:
        sent.append([method for method, _ in json.loads(body)])
        return str(fetch(self, path, body))

    monkeypatch.setattr(BatchingClient, "_fetch", noted)
    return sent


@pytest.fixture
def file(tmp_path: Path, backend: Any) -> Path:
    backend.slots = SLOTS
    return write_experiment(tmp_path, experiments__numNets=NETS)


def build(file: Path, port: int) -> bool:
    where: dict[str, Any] = {"scheduler_host": "127.0.0.1", "scheduler_port": port, "log_level": "CRITICAL"}
    return bool(luigi.build([RunExperiment(config=str(file))], **where))


def running_at(port: int) -> list[str]:
    body = ask(port, "/api/task_list?data=%7B%22status%22:%22RUNNING%22%7D")[1]
    return list(json.loads(body)["response"])


def test_fewer_messages_than_tasks_and_every_task_once(file, backend, messages):
    with served(file.parent) as port:
        assert build(file, port)
    tasks = len(backend.submitted)
    assert tasks == NETS * 8 + 2
    assert len(messages) < 0.6 * tasks
    assert sum(methods.count("add_task") for methods in messages) == 2 * (tasks + 1)  # sent, and done


def test_tasks_that_a_stopped_run_does_not_start_are_given_back(file, backend, messages):
    stop = len(backend.submitted) + 2

    def act(what: str) -> None:
        if len(backend.submitted) == stop:
            os.kill(os.getpid(), signal.SIGUSR1)

    backend.on_submit = act
    with served(file.parent) as port:
        build(file, port)
        assert running_at(port) == []
    assert ["take_back"] in [methods[-1:] for methods in messages]
    assert len(backend.submitted) == stop + 1
    backend.on_submit = lambda what: None
    with served(file.parent) as port:
        assert build(file, port)
    assert len(backend.submitted) == NETS * 8 + 2


@pytest.mark.parametrize("moment", [3, 7])
def test_a_luigid_that_is_gone_while_tasks_are_given_loses_none(file, backend, monkeypatch, moment, capsys):
    def act(what: str) -> None:
        if len(backend.submitted) == moment:
            monkeypatch.setattr(BatchingClient, "_fetch", gone)

    def gone(self: Any, path: str, body: str) -> str:
        raise RPCError("no answer")

    backend.on_submit = act
    with served(file.parent) as port:
        assert build(file, port)
    assert len(backend.submitted) == NETS * 8 + 2
    assert "does not respond" in capsys.readouterr().out
