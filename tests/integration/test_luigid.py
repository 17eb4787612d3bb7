"""A real luigid: tasks and their progress are seen there, two drivers share the work, a damaged input is repaired."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.experiments import command, write_experiment, write_paced

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def luigid(tmp_path, request) -> Iterator[str]:
    """Start luigid, Luigi's own with its defaults, or ours if a test asks for it; return its address."""
    port = free_port()
    folder = tmp_path / "luigid"
    folder.mkdir()
    code = "from luigi.cmdline import luigid; luigid()"
    arguments = ["--address", "127.0.0.1", "--port", str(port), "--state-path", str(folder / "state.pickle")]
    command = ["-c", code] if getattr(request, "param", "") != "ours" else ["-m", "luigi_prune", "luigid"]
    server = subprocess.Popen([sys.executable, *command, *arguments], cwd=folder, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(timeout=20)


def ask(url: str, method: str, **parameters: Any) -> Any:
    data = urllib.parse.quote(json.dumps(parameters))
    with urllib.request.urlopen(f"{url}/api/{method}?data={data}", timeout=20) as answer:
        return json.load(answer)["response"]


def driver(file: Path, url: str, backend: str = "local", light: bool = True) -> subprocess.Popen[str]:
    """Start a run whose jobs train nothing, unless `light` is False."""
    return command(file, "--scheduler-url", url, backend=backend, local_scheduler=False, light=light)


def test_tasks_and_their_progress_are_seen_at_luigid(tmp_path, luigid):
    file = write_paced(tmp_path, pace=0.05, training__numEpochs=30, experiments__mode="train")
    process = driver(file, luigid, light=False)
    seen: dict[str, Any] = {}
    while process.poll() is None and "percentage" not in seen:
        for task_id, task in ask(luigid, "task_list", status="RUNNING", upstream_status="").items():
            assert task["params"]["network"] == "pacing:paced"
            assert "spec" not in task["params"]
            status = ask(luigid, "get_task_status_message", task_id=task_id)["statusMessage"]
            percentage = ask(luigid, "get_task_progress_percentage", task_id=task_id)["progressPercentage"]
            if status and percentage:
                seen = {"status": status, "percentage": percentage, "name": task["name"]}
        time.sleep(0.2)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert "using a local scheduler" not in out
    assert re.match(r"epoch \d+/30, validation TopK1 0\.\d+", seen["status"])
    assert 0 < seen["percentage"] <= 100
    done = ask(luigid, "task_list", status="DONE", upstream_status="")
    assert {task["name"] for task in done.values()} == {"TrainBase", "Evaluate", "Aggregate", "Report", "RunExperiment"}


@pytest.mark.parametrize("luigid", ["luigi", "ours"], indirect=True)
def test_two_drivers_share_the_work_and_do_nothing_twice(tmp_path, luigid):
    one = [{"type": "manual", "values": [0.5]}]
    changes = {"experiments__methods": ["ThresNet", "UniNet"], "experiments__spacing": one}
    file = write_experiment(tmp_path, **changes)
    (tmp_path / "pace").write_text("0.05")
    drivers = [driver(file, luigid), driver(file, luigid)]
    outs = [process.communicate(timeout=300)[0] for process in drivers]
    assert [process.returncode for process in drivers] == [0, 0], outs
    starts = [
        len(re.findall(r"epoch 1/40", log.read_text()))
        for log in (tmp_path / "results" / "logs").glob("TrainBase*.log")
    ]
    assert starts == [1]


@pytest.mark.parametrize("luigid", ["ours"], indirect=True)
def test_a_damaged_input_is_repaired_although_luigid_thinks_that_it_is_done(tmp_path, luigid):
    file = write_experiment(tmp_path)
    first = driver(file, luigid, "inline")
    assert first.wait(timeout=300) == 0, first.communicate()
    base = next((tmp_path / "results").rglob("TrainBase/*.h5"))
    base.write_bytes(base.read_bytes()[:-9])
    file = write_experiment(tmp_path, experiments__methods=["ThresNet", "UniNet"])
    second = driver(file, luigid, "inline")
    out, _ = second.communicate(timeout=300)
    assert second.returncode == 0, out
    assert "set aside as" in out
    assert len(list(base.parent.glob("*.corrupt.*"))) == 1
    assert base.exists()


def test_a_failure_is_shown_at_luigid_and_a_new_run_tries_again(tmp_path, luigid):
    file = write_experiment(tmp_path)
    (tmp_path / "broken").write_text("the seventh layer is missing")
    for _ in range(2):
        process = driver(file, luigid, "inline")
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 30, out
        assert "failed" in out
        assert "1 failed" in out
    (failed,) = ask(luigid, "task_list", status="DISABLED", upstream_status="")
    assert "the seventh layer is missing" in ask(luigid, "fetch_error", task_id=failed)["error"]
