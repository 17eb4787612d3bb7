"""The driver's side of the local backend: any main module, no torch in it, and nothing outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from listening import PATIENCE, running, wait_until

pytestmark = pytest.mark.long

LINUX = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads /proc")

# Without the `__main__` guard on purpose: whoever runs this file again adds a line to runs.txt.
DRIVER = """
import functools, json, os, sys, threading, time
folder = {folder!r}
with open(folder + "/runs.txt", "a") as runs:
    print(__name__, file=runs)
sys.path.insert(0, {functions!r})
from luigi_prune.execution.local import local_backend
from luigi_prune.execution.job import ComputeSettings, Job
{first}
if {light}:
    preload = ("luigi_prune.jobs", "luigi_prune.execution.local.child")
    local_backend.WarmServer = functools.partial(local_backend.WarmServer, preload=preload)

class Listener:
    def __init__(self): self.over = threading.Event()
    def started(self): pass
    def progressed(self, fraction, message): pass
    def ended(self, outcome): self.outcome = outcome; self.over.set()

def submit(function, tag, family="Retrain"):
    listener = Listener()
    request = dict(folder=folder, tag=tag)
    job = Job("job_functions:" + function, tag, family, request, folder + "/" + tag, folder + "/logs/" + tag)
    backend.submit(job, listener)
    return listener

backend = local_backend.LocalBackend(ComputeSettings(device="cpu", jobs=3, processes=dict(TrainBase=2)))
"""
ONE_JOB = """
listener = submit("facts", "facts")
listener.over.wait()
assert listener.outcome.status == "done", listener.outcome
backend.close()
print("torch" in sys.modules)
"""
HOLDING = """
submit("hold_with_children", "one")
submit("hold", "two", "TrainBase")
while not all(os.path.exists(folder + name) for name in ("/one-0.json", "/two-0.json", "/two-1.json")):
    time.sleep(0.01)
"""


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    started = []

    def start(
        text: str, light: bool = True, command: tuple[str, ...] = ("driver.py",), first: str = ""
    ) -> subprocess.Popen:
        place = str(Path(__file__).parent)
        text = DRIVER.format(folder=str(tmp_path), functions=place, light=light, first=first) + text
        (tmp_path / "driver.py").write_text(text)
        arguments = [str(tmp_path / part) if part == "driver.py" else part.replace("TEXT", text) for part in command]
        with open(tmp_path / "driver.py") as script:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=script,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={**os.environ, "TMPDIR": str(tmp_path)},
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            stream.close()


@pytest.mark.parametrize("command", [("driver.py",), ("-c", "TEXT"), ("-",)], ids=["script", "-c", "stdin"])
def test_the_main_module_runs_once_and_never_in_a_job(driver, tmp_path, command):
    process = driver(ONE_JOB, command=command)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "False\n", "")
    assert (tmp_path / "runs.txt").read_text() == "__main__\n"
    assert json.loads((tmp_path / "facts-0.json").read_text())["main"] is None


def test_the_driver_never_loads_torch_while_its_jobs_have_it(driver, tmp_path):
    pytest.importorskip("torch")
    process = driver(ONE_JOB, light=False)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "False\n", "")
    assert json.loads((tmp_path / "facts-0.json").read_text())["torch"] is True


def test_the_luigi_executable_runs_jobs(tmp_path):
    luigi = Path(sys.executable).parent / "luigi"
    if not luigi.exists():
        pytest.skip("the luigi script is not installed beside this Python")
    (tmp_path / "tiny_tasks.py").write_text(
        DRIVER.format(folder=str(tmp_path), functions=str(Path(__file__).parent), light=True, first="")
        + """
import luigi

class Tiny(luigi.Task):
    def output(self): return luigi.LocalTarget(folder + "/facts-0.json")
    def run(self): submit("facts", "facts").over.wait(); backend.close()
"""
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [str(luigi), "--module", "tiny_tasks", "Tiny", "--local-scheduler", "--log-level", "WARNING"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs.txt").read_text() == "tiny_tasks\n"
    assert json.loads((tmp_path / "facts-0.json").read_text())["main"] is None


@LINUX
def test_nothing_outlives_a_driver_that_is_killed(driver, tmp_path):
    # the fork stands for a task process of Luigi: it inherits the driver's pipes, and lives on
    process = driver(HOLDING + "if os.fork() == 0: print(os.getpid(), flush=True); time.sleep(600)\ntime.sleep(600)\n")
    fork = int(process.stdout.readline())
    try:
        others = [pid for pid in descendants(process.pid) if pid != fork]
        # the server and the standard library's resource tracker, three processes of two jobs, two of the first's own
        assert len(others) == 7
        assert len(list(tmp_path.glob("luigi_prune_*"))) == 1
        process.kill()
        process.wait()
        # the tracker alone waits for the fork too
        wait_until(lambda: sum(running(pid) for pid in others) <= 1)
        assert running(fork)
        assert not list(tmp_path.glob("luigi_prune_*"))  # where the processes of the second job met
    finally:
        os.kill(fork, signal.SIGKILL)
    wait_until(lambda: not any(running(pid) for pid in others))


@LINUX
def test_nothing_outlives_a_driver_that_is_killed_while_the_server_warms_up(driver):
    process = driver("submit('hold', 'one')\nprint('submitted', flush=True)\ntime.sleep(600)\n", light=False)
    process.stdout.readline()
    wait_until(lambda: len(descendants(process.pid)) == 2)
    others = descendants(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(running(pid) for pid in others))
    assert len(others) == 2


@LINUX
def test_a_driver_that_just_returns_leaves_nothing(driver, tmp_path):
    process = driver(
        HOLDING + "print('ready', flush=True)\nwhile not os.path.exists(folder + '/leave'): time.sleep(0.01)"
    )
    process.stdout.readline()
    others = descendants(process.pid)
    assert len(others) == 7
    (tmp_path / "leave").touch()
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    wait_until(lambda: not any(running(pid) for pid in others))


CTRL_C = """
try:
    print("ready", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    backend.close()
    print("closed", flush=True)
"""


@LINUX
@pytest.mark.parametrize("moment", ["while jobs run", "while the server warms up"])
def test_ctrl_c_is_answered_by_the_driver_alone(driver, tmp_path, moment):
    warm = moment == "while jobs run"
    process = driver((HOLDING if warm else "submit('hold', 'one')\n") + CTRL_C, light=warm)
    assert process.stdout.readline() == "ready\n"
    wait_until(lambda: len(descendants(process.pid)) >= 2)
    others = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "closed\n", "")
    wait_until(lambda: not any(running(pid) for pid in others))
    if warm:
        assert len(list(tmp_path.glob("*.saved"))) == 3  # every process could save


def descendants(root: int) -> list[int]:
    """Every process below `root`, those in process groups of their own too."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]
