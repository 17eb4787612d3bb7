"""A fake SLURM under a test's control: commands on PATH, a clock, and jobs whose heartbeats the test writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.execution import claims
from luigi_prune.execution.job import ComputeSettings, Job, Outcome
from luigi_prune.execution.slurm import heartbeat, poller, submission_queue
from luigi_prune.execution.slurm import slurm_backend as backend_module
from luigi_prune.execution.slurm import tracked_job as tracked_job_module
from luigi_prune.execution.slurm.options import FAMILIES, Resources, SlurmSettings
from luigi_prune.execution.slurm.slurm_backend import SlurmBackend
from tests.slurm import fake_commands
from tests.slurm.recording_listener import RecordingListener

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "srun")
ALWAYS = 10**9


class FakeSlurm:
    """A queue and an accounting that only the test changes."""

    def __init__(self, folder: Path):
        """Put the commands into `folder`/bin."""
        self.bin, self._state = folder / "bin", folder / "slurm.json"
        self.bin.mkdir(parents=True)
        empty: dict[str, Any] = {"jobs": {}, "queue": {}, "accounting": {}, "faults": [], "calls": []}
        self._state.write_text(json.dumps({**empty, "broken": [], "next_id": 100, "max_array_size": 1001}))
        place = Path(fake_commands.__file__).parent
        for command in COMMANDS:
            script = f"#!{sys.executable} -S\nimport sys\nsys.path.insert(0, {str(place)!r})\nimport fake_commands\n"
            script += f"sys.exit(fake_commands.main({str(self._state)!r}, {command!r}, sys.argv[1:]))\n"
            (self.bin / command).write_text(script)
            (self.bin / command).chmod(0o755)

    @contextmanager
    def state(self) -> Iterator[dict[str, Any]]:
        """Give the state, to look at and to change."""
        with fake_commands.opened(str(self._state)) as state:
            yield state

    def put(
        self,
        slurm_id: str,
        state: str,
        reason: str = "None",
        nodes: str = "n1",
        start: str = "N/A",
        priority: str = "1",
    ) -> None:
        """Set a job's row in the queue."""
        row = {"state": state, "reason": reason, "nodes": nodes, "start": start, "priority": priority}
        with self.state() as now:
            now["queue"][slurm_id] = row

    def account(self, slurm_id: str, state: str, nodes: str = "n1") -> None:
        """Set a job's record in the accounting."""
        with self.state() as now:
            now["accounting"][slurm_id] = {"state": state, "nodes": nodes}

    def forget(self, slurm_id: str) -> None:
        """Remove a job from the queue."""
        with self.state() as now:
            del now["queue"][slurm_id]

    def fail(self, command: str, says: str, times: int = ALWAYS, silently: bool = False) -> None:
        """Let a command fail; `silently`: only after it has done what it was asked."""
        with self.state() as now:
            now["faults"].append({"command": command, "says": says, "times": times, "silently": silently})

    def mend(self) -> None:
        """Let all commands work again."""
        with self.state() as now:
            now["faults"].clear()

    def calls(self, command: str) -> list[list[str]]:
        """Return what a command was called with, each time; tests of the site do not count."""
        with self.state() as now:
            called = [call[1:] for call in now["calls"] if call[0] == command]
        return [arguments for arguments in called if "--test-only" not in arguments]

    def script(self, job_id: str) -> str:
        """Return the script of a submission."""
        with self.state() as now:
            return now["jobs"][job_id.partition("_")[0]]["script"]

    def run(self, job_id: str) -> None:
        """Run a job that is no array, as its node would, to its end; its state in the queue says how it went.

        A job that is cancelled meanwhile gets SIGTERM.
        """
        with self.state() as now:
            job = now["jobs"][job_id]
        self.put(job_id, "RUNNING")
        inner = {"SLURM_JOB_ID": job_id, "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
        inner |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_RESTART_COUNT": "0"}
        process = subprocess.Popen(
            ["bash", "-c", job["script"]],
            env={**os.environ, **inner},
            cwd=job["directory"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None:
            time.sleep(0.05)
            with self.state() as now:
                cancelled = now["queue"][job_id]["state"] == "CANCELLED"
            if cancelled:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                return
        self.put(job_id, "FAILED" if process.returncode else "COMPLETED")


class Clock:
    """Stands where the backend's modules have `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Driver:
    """The real backend without its thread: its turns are taken when the test lets time pass."""

    def __init__(self, slurm: FakeSlurm, clock: Clock, folder: Path, resources: Resources, **changes: Any):
        self.slurm, self.clock, self.folder = slurm, clock, folder
        site = SlurmSettings(resources=dict.fromkeys(FAMILIES, resources), **changes)
        self.backend = SlurmBackend(ComputeSettings(backend="slurm", device="cpu", own=site))
        self.polls: list[float] = []  # when squeue was asked

    def submit(self, *tags: str) -> list[RecordingListener]:
        """Hand in jobs with these tags, and let them be submitted."""
        listeners = [RecordingListener(self.job(tag)) for tag in tags]
        for listener in listeners:
            self.backend.submit(listener.job, listener)
        self.backend._tick()  # it was woken
        self.advance(1)
        return listeners

    def job(self, tag: str, family: str = "Retrain") -> Job:
        output = str(self.folder / f"{tag}.json")
        return Job(
            function="tests.slurm.slurm_functions:write",
            name=tag,
            family=family,
            request={"output": output},
            output=output,
            log=str(self.folder / "logs" / f"{tag}.log"),
            folder=str(self.folder / "slurm"),
        )

    def advance(self, seconds: float) -> None:
        """Let time pass: the backend takes its turns."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now += min(self.backend._idle_seconds(), end - self.clock.now)
            calls = self.backend.client.calls["squeue"]
            self.backend._tick()
            self.polls += [self.clock.now] * (self.backend.client.calls["squeue"] - calls)


class FakeJob:
    """The job of a listener: writes heartbeats and results as if it ran."""

    def __init__(self, listener: RecordingListener):
        claim = claims.newest(listener.job.output)
        assert claim is not None
        self.path = heartbeat.heartbeat_path(claim.folder, claim.index)
        self.output = Path(listener.job.output)
        self.claim = claim

    @property
    def slurm_id(self) -> str:
        """The id of the job."""
        submitted = json.loads((Path(self.claim.folder) / "submitted.json").read_text())
        return f"{submitted['job_id']}_{self.claim.index}" if submitted["count"] > 1 else submitted["job_id"]

    def beat(self, message: str = "", outcome: Outcome | None = None, restart: int = 0) -> None:
        """Write a heartbeat."""
        latest = heartbeat.Heartbeat(restart, "n1", 0.5, message, asdict(outcome) if outcome else None)
        private = self.path.with_suffix(".part")
        private.write_text(json.dumps(asdict(latest)))
        os.replace(private, self.path)

    def finish(self, result: bool = True) -> None:
        """Write the result and report the end."""
        if result:
            self.output.write_text("{}")
        self.beat(outcome=Outcome("done", seconds=1.0))


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Return a fake SLURM whose commands are found first on PATH."""
    slurm = FakeSlurm(tmp_path / "fake")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{slurm.bin}{os.pathsep}{os.environ['PATH']}")
    return slurm


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock of backends that live without a thread."""
    clock = Clock()
    for module in (backend_module, poller, submission_queue, tracked_job_module):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(SlurmBackend, "_serve", lambda self: None)
    return clock


@pytest.fixture
def make_driver(fake_slurm: FakeSlurm, clock: Clock, tmp_path: Path) -> Iterator[Any]:
    """Return a function that makes drivers of the fake SLURM."""
    made: list[Driver] = []

    def make(resources: Resources | None = None, **changes: Any) -> Driver:
        made.append(Driver(fake_slurm, clock, tmp_path, resources or Resources(), **changes))
        return made[-1]

    yield make
    for driver in made:
        driver.backend.close()


@pytest.fixture
def driver(make_driver: Any) -> Driver:
    """Return a driver with the settings that users have."""
    return make_driver()
