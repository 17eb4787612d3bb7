"""The server's state file and its port."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.errors import ConfigError
from luigi_prune.scheduling.indexed_scheduler import IndexedScheduler
from luigi_prune.scheduling.server import application, check_state_path, serve


def scheduler_at(path: Path) -> IndexedScheduler:
    scheduler = IndexedScheduler(state_path=str(path))
    scheduler.load()
    return scheduler


def test_a_state_that_cannot_be_written_leaves_the_previous_one(tmp_path, monkeypatch):
    scheduler = scheduler_at(tmp_path / "state")
    scheduler.add_task(worker="w", task_id="t")
    scheduler.dump()

    def full(state: Any, file: Any, **options: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    scheduler.add_task(worker="w", task_id="u")
    with monkeypatch.context() as patch:
        patch.setattr(pickle, "dump", full)
        scheduler.dump()
    assert set(scheduler_at(tmp_path / "state").task_list("", "")) == {"t"}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    "content",
    [b"half", b"", *map(pickle.dumps, (5, None, [], ({}, 5, {}), ({"t": 5}, {}, {}), ({}, {"w": 5}, {})))],
)
def test_a_damaged_state_is_an_empty_one(tmp_path, content):
    (tmp_path / "state").write_bytes(content)
    scheduler = scheduler_at(tmp_path / "state")
    scheduler.add_task(worker="w", task_id="t")
    assert scheduler.get_work(worker="w", host="h")["task_id"] == "t"


def test_a_state_file_in_an_impossible_place_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write .*/state: .*; choose another file by --state-path"):
        check_state_path(tmp_path / "file" / "state")
    check_state_path(tmp_path / "new" / "folder" / "state")


def test_a_port_in_use_is_one_line(tmp_path):
    scheduler = scheduler_at(tmp_path / "state")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*; choose another by --port"):
            serve(scheduler, application(scheduler), "127.0.0.1", port, lambda port: None)
