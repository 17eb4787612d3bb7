"""Runs several drivers on one results folder, kills some of them and their luigid, and tells who computed what."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.experiments import command, write_paced

_START = re.compile(r"^(\S+ \S+) INFO .*: process 1 of \d+, (?:pid \d+, of driver (\d+)|SLURM job \S+)$", re.M)
_METHODS = [["ThresNet", "UniNet"], ["UniNet", "SiPPRand"]]


@dataclass(frozen=True)
class Execution:
    """A start of a job in a driver's process."""

    driver: int  # 0: a job of the cluster, which no driver takes with it
    at: float  # seconds since the epoch


@dataclass
class Drivers:
    """Drivers of the same experiment, or of two that share some tasks, with or without a luigid."""

    folder: Path
    overlapping: bool = False
    with_luigid: bool = False
    light: bool = False  # jobs that train nothing (tests/light_jobs.py)
    backend: str = "local"
    config: str = "jobs=2\n"
    nets: int = 1
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    killed: dict[int, float] = field(default_factory=dict)  # process id -> when, in seconds since the epoch
    luigid: subprocess.Popen[bytes] | None = None
    port: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        changes: dict[str, Any] = {"training__numEpochs": 2, "retraining": {"startEpoch": 1}}
        changes["experiments__numNets"] = self.nets
        changes["pace"] = 0.01 if self.light else 0.05
        self.files = [
            write_paced(self.folder, name=f"one{number}", experiments__methods=methods, **changes)
            for number, methods in enumerate(_METHODS if self.overlapping else _METHODS[:1])
        ]
        if self.with_luigid:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = int(probe.getsockname()[1])
            self.start_luigid()

    def start(self, number: int | None = None) -> subprocess.Popen[str]:
        """Start one more driver: of the next experiment, or that of driver `number`."""
        file = self.files[(len(self.processes) if number is None else number) % len(self.files)]
        has_luigid = self.luigid is not None  # a run refuses to start with one that does not respond
        options = ["--scheduler-url", f"http://127.0.0.1:{self.port}"] if has_luigid else []
        more: dict[str, Any] = {"backend": self.backend, "config": self.config, "light": self.light}
        self.processes.append(command(file, *options, local_scheduler=not has_luigid, **more))
        return self.processes[-1]

    def kill(self, driver: subprocess.Popen[str]) -> None:
        """Kill a driver; its jobs end with it, unless they are the cluster's."""
        os.kill(driver.pid, signal.SIGKILL)
        self.killed[driver.pid] = time.time()
        driver.communicate()

    def start_luigid(self) -> None:
        """Start luigid with its own settings and without a state."""
        state = self.folder / f"luigid-{time.time_ns()}"
        arguments = ["--address", "127.0.0.1", "--port", str(self.port), "--state-path", str(state)]
        code = "from luigi.cmdline import luigid; luigid()"
        self.luigid = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)

    def kill_luigid(self) -> None:
        """Kill luigid: it saves no state."""
        if self.luigid is not None:
            self.luigid.kill()
            self.luigid.wait()
            self.luigid = None

    def wait(self, seconds: float = 600) -> list[tuple[int, str]]:
        """Return the exit code and the output of every driver that was not killed."""
        ended = []
        for number, process in enumerate(list(self.processes)):
            if process.pid not in self.killed:
                out, _ = process.communicate(timeout=seconds)
                if process.returncode == 35 and "no Luigi scheduler responds" in out:  # started right after its death
                    self.kill_luigid()
                    out, _ = (process := self.start(number)).communicate(timeout=seconds)
                ended.append((process.returncode, out))
        self.kill_luigid()
        return ended

    @property
    def results(self) -> Path:
        """The results folder."""
        return self.folder / "results"

    def executions(self) -> dict[str, list[Execution]]:
        """Return the starts of each task's job, by the name of its log, in order."""
        found: dict[str, list[Execution]] = defaultdict(list)
        for log in sorted((self.results / "logs").glob("*.log")):
            for text, driver in _START.findall(log.read_text()):
                at = datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").timestamp()
                found[log.stem].append(Execution(int(driver or 0), at))
        return dict(found)

    def needless(self) -> list[str]:
        """Return the executions that should not have been: of a task that a living driver computed, or had."""
        found = []
        for task, starts in self.executions().items():
            for earlier, later in pairwise(starts):
                death = self.killed.get(earlier.driver)
                if death is None or later.at < death - 0.01:  # the log has milliseconds
                    found.append(f"{task}: driver {later.driver} after driver {earlier.driver}")
        return found


def disturbed_run(
    folder: Path, drivers: int, overlapping: bool, with_luigid: bool, seed: int, light: bool = False, **more: Any
) -> Drivers:
    """Start drivers one after the other; kill one (and start another) and luigid at random moments; wait for the end.

    The moments are counted in starts of jobs, so that the machine's speed does not decide whether anything is killed.
    """
    chance = random.Random(seed)
    run = Drivers(folder, overlapping, with_luigid, light, **more)
    for _ in range(drivers):
        run.start()
        time.sleep(chance.uniform(0, 0.5))
    events = sorted([(chance.randint(1, 12), "driver"), *([(chance.randint(1, 12), "luigid")] if with_luigid else [])])
    for number, target in events:
        deadline = time.monotonic() + 300
        while sum(map(len, run.executions().values())) < number and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 0.3))
        if target == "luigid":
            run.kill_luigid()
            if chance.random() < 0.5:  # else it is gone for good
                time.sleep(chance.uniform(0, 3))
                run.start_luigid()
        elif living := [process for process in run.processes if process.poll() is None]:
            victim = chance.choice(living)
            run.kill(victim)
            run.start(run.processes.index(victim))
    return run
