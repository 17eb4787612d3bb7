"""An experiment on a SLURM cluster while it is disturbed, for benchmarks/disturbances.py."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.experiments import command, write_experiment
from tests.slurm.cluster import Cluster, environments

CHANGES: dict[str, Any] = {"experiments__methods": [], "experiments__numNets": 3}
SETTINGS = "device=cpu\n[slurm]\npoll_seconds=2\npoll_seconds_max=4\ngrace_seconds=5\nrequeue_wait_seconds=60\n"
LIMITS = "timeout_min=10\n"


class Trial:
    """One experiment on the cluster, while it is disturbed."""

    def __init__(self, cluster: Cluster, folder: Path):
        self.cluster, self.folder = cluster, folder
        self.file = write_experiment(folder, **CHANGES)
        (folder / "pace").write_text("0.3")
        self.settings = SETTINGS + LIMITS
        self.lines: list[str] = []
        self.drivers: list[subprocess.Popen[str]] = []
        self.codes: list[int] = []
        self.recovered: float | None = None  # seconds from the disturbance until the disturbed work went on
        self.began = time.monotonic()

    def drive(self) -> subprocess.Popen[str]:
        """Start a driver, and collect what it prints."""
        process = command(self.file, "--workers", "20", backend="slurm", light=True, config=self.settings)
        self.drivers.append(process)

        def read() -> None:
            assert process.stdout
            self.lines.extend(line.rstrip() for line in process.stdout)

        threading.Thread(target=read, daemon=True).start()
        return process

    def running(self, epoch: int = 5) -> list[tuple[str, str]]:
        """Wait until all trainings have made so many epochs; return (SLURM id, node) of each."""
        self.until(lambda: len(self.trained(epoch)) == CHANGES["experiments__numNets"])
        rows = self.cluster.run("squeue", "-h", "-r", "-t", "R", "-o", "%i %N").stdout.splitlines()
        return [(row.split()[0], row.split()[1]) for row in sorted(rows)]

    def logs(self) -> list[str]:
        """Return the logs of the trainings."""
        return [path.read_text() for path in sorted((self.folder / "results" / "logs").glob("TrainBase*.log"))]

    def trained(self, epoch: int) -> list[str]:
        """Return the logs with this epoch."""
        return [log for log in self.logs() if f"INFO epoch {epoch}/" in log]

    def starts(self) -> int:
        """Return how many times a training began or went on."""
        return sum(log.count("process 1 of") for log in self.logs())

    def until(self, condition: Callable[[], Any], seconds: float = 150) -> float:
        """Wait for a condition; return the seconds that took."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                raise TimeoutError("it never happened")
            time.sleep(0.2)
        return time.monotonic() - began

    def restarts_within(self, count: int = 1) -> None:
        """Measure how long it takes until `count` trainings have been started again."""
        before = self.starts()
        self.recovered = self.until(lambda: self.starts() >= before + count)

    def said(self, words: str) -> bool:
        """Return whether a driver has printed these words."""
        return any(words in line for line in self.lines)

    def process_of(self, job: str) -> int:
        """Return the Python process of an element of an array."""
        array, _, element = job.partition("_")
        for pid, variables in environments().items():
            own = (variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID"))
            if own == (array, element) and "SLURM_PROCID" in variables:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"entrypoint" in line and not line.split(b"\0")[0].endswith((b"srun", b"sh")):
                    return pid
        raise LookupError(job)

    def finish(self) -> None:
        """Wait for the drivers; give the command once more if something is missing."""
        for process in self.drivers:
            self.codes.append(process.wait(timeout=240))
        if 0 not in self.codes:
            self.settings = SETTINGS + LIMITS
            self.codes.append(self.drive().wait(timeout=240))

    def accounting(self) -> str:
        """Return the jobs that the accounting has of this experiment, by their states."""
        columns = ("-X", "-D", "-n", "-P", "-o", "WorkDir,State")

        def states() -> list[str]:
            lines = self.cluster.run("sacct", "--starttime", "now-1hours", *columns).stdout.splitlines()
            return [line.rpartition("|")[2].split()[0] for line in lines if line.startswith(f"{self.folder}|")]

        self.until(lambda: not {"PENDING", "RUNNING", "COMPLETING"} & set(states()), 30)
        return ", ".join(f"{count} {state}" for state, count in Counter(states()).most_common())
