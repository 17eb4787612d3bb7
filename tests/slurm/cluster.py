"""A development cluster in the hands of a test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DEV_CLUSTER = Path(__file__).resolve().parents[2] / "slurm" / "dev_cluster"


def dev_cluster(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run slurm/dev_cluster, however it ends."""
    command = [sys.executable, str(DEV_CLUSTER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)


def eventually(condition: Callable[[], object], seconds: float = 60, interval: float = 0.1) -> bool:
    """Tell whether a condition comes true within a time that is only there to end a test that hangs."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval)
    return True


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its folder, and what clients and people do to it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs, without what a job or another cluster may have left in ours."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SACCT", "SQUEUE"))}
        return {**kept, "SLURM_CONF": f"{self.folder}/etc/slurm.conf"}

    def run(self, *command: object, check: bool = True, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a client of this cluster; raises AssertionError with its words when `check` and it fails."""
        done = subprocess.run(
            [*map(str, command)], env=self.environment, capture_output=True, text=True, timeout=seconds
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def sbatch(self, *options: object, wrap: str = "true") -> str:
        """Return the id of a new job; its output is thrown away unless the options say where to."""
        output = () if any(str(option).startswith(("-o", "--output")) for option in options) else ("-o", "/dev/null")
        return self.run("sbatch", "--parsable", *output, *options, "--wrap", wrap).stdout.strip()

    def squeue(self, *options: object) -> dict[str, str]:
        """Return job -> state of all that waits or runs, an array's elements each."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i %T", *options).stdout.splitlines()
        return dict(line.split() for line in lines)

    def sacct(self, *jobs: str) -> list[tuple[str, str]]:
        """Return (job, state) of every run of these jobs, oldest first, from accounting."""
        command = ("sacct", "-n", "-X", "-D", "-P", "-o", "jobid,state", "-j", ",".join(jobs))
        lines = self.run(*command).stdout.splitlines()
        return [(job, state.split()[0]) for job, state in (line.split("|") for line in lines)]

    def nodes(self) -> dict[str, str]:
        """Return node -> state."""
        lines = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").stdout.splitlines()
        return dict(line.split() for line in lines)

    def do(self, command: str, *arguments: object) -> str:
        """Return what a command of slurm/dev_cluster prints; raises AssertionError when it fails."""
        done = dev_cluster(command, self.folder, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kill_node(self, node: str) -> None:
        self.do("kill-node", node)

    def stop_slurmd(self, node: str) -> None:
        self.do("stop-slurmd", node)

    def start_node(self, node: str) -> None:
        self.do("start-node", node)

    def stop_controller(self, crash: bool = False) -> None:
        self.do("stop-controller", *(["--crash"] if crash else []))

    def start_controller(self) -> None:
        self.do("start-controller")

    def restart_controller(self, crash: bool = False) -> None:
        self.do("restart-controller", *(["--crash"] if crash else []))

    def stop_accounting(self) -> None:
        self.do("stop-accounting")

    def start_accounting(self) -> None:
        self.do("start-accounting")

    def settle(self) -> None:
        """Cancel all jobs and mend what a test has broken."""
        self.start_controller()
        if (self.folder / "etc" / "slurm.conf").read_text().count("accounting_storage/slurmdbd"):
            self.start_accounting()
        self.run("scancel", "--user", os.geteuid(), check=False)
        for node, state in self.nodes().items():
            if state.rstrip("*") in ("down", "drained", "draining") or state.endswith("*"):
                self.start_node(node)
                self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        assert eventually(lambda: not self.squeue() and set(self.nodes().values()) == {"idle"}), self.nodes()


def environments() -> dict[int, dict[str, str]]:
    """Return pid -> environment of all processes that can be read; those that only wait to be reaped have none."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            entries = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        found[int(path.parent.name)] = dict(entry.partition("=")[::2] for entry in entries if entry)
    return found


def processes_of(folder: Path) -> list[int]:
    """Return the pids of all processes, clients too, that belong to the cluster in a folder."""
    conf = f"{folder}/etc/slurm.conf"
    return [pid for pid, variables in environments().items() if variables.get("SLURM_CONF") == conf]
