"""What an experiment on SLURM makes of disturbances: the table of docs/disturbances.md, from runs on a cluster.

    python -m benchmarks.disturbances [--only NAME ...] [--out table.md]

Starts `slurm/dev_cluster` for itself. Each row runs the same three trainings, disturbs them, and if the run ends with
failures, gives the same command once more. A row says what the run printed, after how many seconds the disturbed work
went on, which jobs the accounting has, and whether all arrays are those of a run in one process.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.experiments import command, contents, write_paced
from tests.slurm.cluster import Cluster, dev_cluster, environments

CHANGES: dict[str, Any] = {
    "experiments__methods": [],
    "experiments__numNets": 3,
    "training__numEpochs": 40,
    "training__lrSchedulers": [],
}
SETTINGS = "device=cpu\n[slurm]\npoll_seconds=2\npoll_seconds_max=4\ngrace_seconds=5\nrequeue_wait_seconds=60\n"
LIMITS = "timeout_min=10\n"
_QUIET = re.compile(
    r"tasks done,|tasks to do|^Report:|^Curves:|SLURM commands|local scheduler|^Nothing|^$|tasks done in"
)


class Trial:
    """One experiment on the cluster, while it is disturbed."""

    def __init__(self, cluster: Cluster, folder: Path):
        self.cluster, self.folder = cluster, folder
        self.file = write_paced(folder, 0.15, **CHANGES)
        self.settings = SETTINGS + LIMITS
        self.lines: list[str] = []
        self.drivers: list[subprocess.Popen[str]] = []
        self.codes: list[int] = []
        self.recovered: float | None = None  # seconds from the disturbance until the disturbed work went on
        self.began = time.monotonic()

    def drive(self) -> subprocess.Popen[str]:
        """Start a driver, and collect what it prints."""
        process = command(self.file, "--workers", "20", backend="slurm", config=self.settings)
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


def calm(trial: Trial) -> None:
    """nothing"""
    trial.drive()


def controller_down_at_start(trial: Trial) -> None:
    """slurmctld is down when the run starts, for 30 s"""
    trial.cluster.stop_controller()
    trial.drive()
    time.sleep(30)
    trial.cluster.start_controller()
    trial.recovered = trial.until(lambda: trial.starts() >= 3)


def controller_down(trial: Trial) -> None:
    """slurmctld is down for 20 s in mid-run"""
    trial.drive()
    trial.running()
    trial.cluster.stop_controller()
    time.sleep(20)
    trial.cluster.start_controller()
    trial.recovered = 0.0


def controller_crash(trial: Trial) -> None:
    """slurmctld is killed and restarted"""
    trial.drive()
    trial.running()
    trial.cluster.restart_controller(crash=True)
    trial.recovered = 0.0


def controller_down_when_all_is_done(trial: Trial) -> None:
    """slurmctld is down, and all results exist"""
    trial.codes.append(trial.drive().wait(timeout=240))
    trial.drivers.clear()
    trial.lines.clear()
    trial.cluster.stop_controller()
    began = time.monotonic()
    try:
        trial.codes[:] = [trial.drive().wait(timeout=60)]
        trial.recovered = time.monotonic() - began
    finally:
        trial.cluster.start_controller()


def accounting_down(trial: Trial) -> None:
    """slurmdbd is down, and a process is killed"""
    trial.drive()
    job, _ = trial.running()[0]
    trial.cluster.stop_accounting()
    os.kill(trial.process_of(job), signal.SIGKILL)
    trial.restarts_within()
    trial.cluster.start_accounting()


def nodes_drained_at_start(trial: Trial) -> None:
    """all nodes are drained when the run starts, for 15 s"""
    trial.cluster.run("scontrol", "update", "nodename=n[1-4]", "state=drain", "reason=test")
    trial.drive()
    time.sleep(15)
    trial.cluster.run("scontrol", "update", "nodename=n[1-4]", "state=resume")
    trial.recovered = trial.until(lambda: trial.starts() >= 3)


def node_drained(trial: Trial) -> None:
    """the node of a job is drained"""
    trial.drive()
    _, node = trial.running()[0]
    trial.cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    trial.recovered = 0.0


def node_crash(trial: Trial) -> None:
    """the node of a job crashes"""
    trial.drive()
    _, node = trial.running()[0]
    trial.cluster.kill_node(node)
    trial.restarts_within()


def daemon_dies(trial: Trial) -> None:
    """slurmd of a job's node dies, the job goes on"""
    trial.drive()
    _, node = trial.running()[0]
    trial.cluster.stop_slurmd(node)
    trial.until(lambda: "tasks done in" in "\n".join(trial.lines))
    trial.recovered = 0.0


def requeue(trial: Trial) -> None:
    """`scontrol requeue` of one job"""
    trial.drive()
    job, _ = trial.running()[0]
    trial.cluster.run("scontrol", "requeue", job)
    trial.restarts_within()


def requeuehold(trial: Trial) -> None:
    """`scontrol requeuehold` of one job, released after 15 s"""
    trial.drive()
    job, _ = trial.running()[0]
    trial.cluster.run("scontrol", "requeuehold", job)
    time.sleep(15)
    trial.cluster.run("scontrol", "release", job)
    trial.restarts_within()


def held(trial: Trial) -> None:
    """jobs are held in the queue, released after 15 s"""
    trial.settings += "hold=true\n"
    trial.drive()
    trial.until(lambda: len(trial.cluster.squeue()) == 3)
    time.sleep(15)
    trial.cluster.run("scontrol", "release", *trial.cluster.squeue())
    trial.recovered = trial.until(lambda: trial.starts() >= 3)


def suspend(trial: Trial) -> None:
    """`scontrol suspend` of one job, resumed after 15 s"""
    trial.drive()
    job, _ = trial.running()[0]
    trial.cluster.run("scontrol", "suspend", job)
    time.sleep(15)
    size = sum(map(len, trial.logs()))
    trial.cluster.run("scontrol", "resume", job)
    trial.recovered = trial.until(lambda: sum(map(len, trial.logs())) > size)


def scancel_one(trial: Trial) -> None:
    """`scancel` of one job; the command again"""
    trial.drive()
    job, _ = trial.running()[0]
    trial.cluster.run("scancel", job)
    trial.recovered = trial.until(lambda: trial.said("was cancelled"))


def scancel_all(trial: Trial) -> None:
    """`scancel` of all jobs; the command again"""
    trial.drive()
    trial.cluster.run("scancel", *(job for job, _ in trial.running()))
    trial.recovered = trial.until(lambda: trial.said("was cancelled"))


def usr2(trial: Trial) -> None:
    """USR2 to the last element of the array (preemption, time limit near)"""
    trial.drive()
    job, _ = trial.running()[-1]
    trial.cluster.run("scancel", "--signal=USR2", job)
    trial.restarts_within()


def time_limit(trial: Trial) -> None:
    """trainings longer than their time limit of one minute"""
    (trial.folder / "pace").write_text("0.7")
    trial.settings = SETTINGS + "timeout_min=1\nsignal_delay_s=15\n"
    trial.drive()
    trial.running()
    trial.restarts_within(3)


def killed_process(trial: Trial) -> None:
    """`kill -9` of a job's process"""
    trial.drive()
    job, _ = trial.running()[0]
    os.kill(trial.process_of(job), signal.SIGKILL)
    trial.restarts_within()


def out_of_memory(trial: Trial) -> None:
    """too little memory (mem_gb=0.1); the command again with more"""
    trial.settings += "mem_gb=0.1\n"
    trial.drive()
    trial.recovered = trial.until(lambda: trial.said("out of memory"))


def setup_fails(trial: Trial) -> None:
    """a line of `setup` fails; the command again without it"""
    trial.settings += "setup=module load cuda/99\n[scheduler]\nretry_count=1\n"
    trial.drive()
    trial.recovered = trial.until(lambda: trial.said("setup failed"))


def folder_not_visible(trial: Trial) -> None:
    """the results folder is not visible on the nodes; the command again when it is"""
    (trial.folder / "results").mkdir()
    pids = [int(path.read_text()) for path in sorted((trial.cluster.folder / "pids").glob("slurmd-*"))]
    for pid in pids:
        mount = ("mount", "-t", "tmpfs", "-o", "ro", "none", trial.folder / "results")
        subprocess.run(["nsenter", "-t", str(pid), "-m", *map(str, mount)], check=True)
    trial.settings += "[scheduler]\nretry_count=1\n"
    process = trial.drive()
    trial.recovered = trial.until(lambda: trial.said("[failed]"))
    process.wait(timeout=120)
    for pid in pids:
        subprocess.run(["nsenter", "-t", str(pid), "-m", "umount", str(trial.folder / "results")], check=True)


def driver_killed(trial: Trial) -> None:
    """`kill -9` of the driver; the command again"""
    process = trial.drive()
    trial.running()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    trial.drive()
    trial.recovered = trial.until(lambda: trial.said("3 running") or trial.said("tasks done in"))


def driver_stopped(trial: Trial) -> None:
    """the driver is stopped for 30 s (a suspended laptop)"""
    process = trial.drive()
    trial.running()
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(30)
    os.killpg(process.pid, signal.SIGCONT)
    trial.recovered = trial.until(lambda: trial.said("tasks done in"))


def twin_drivers(trial: Trial) -> None:
    """two drivers at once, and one of them is killed"""
    first = trial.drive()
    trial.drive()
    trial.running()
    os.killpg(first.pid, signal.SIGKILL)
    trial.recovered = 0.0


ROWS: tuple[Callable[[Trial], None], ...] = (
    *(calm, controller_down_at_start, controller_down, controller_crash, controller_down_when_all_is_done),
    *(accounting_down, nodes_drained_at_start, node_drained, node_crash, daemon_dies, requeue, requeuehold, held),
    *(suspend, scancel_one, scancel_all, usr2, time_limit, killed_process, out_of_memory, setup_fails),
    *(folder_not_visible, driver_killed, driver_stopped, twin_drivers),
)


def row(disturb: Callable[[Trial], None], cluster: Cluster, folder: Path, expected: dict[str, str]) -> str:
    """Run one row and return it as a line of the table."""
    folder.mkdir()
    trial = Trial(cluster, folder)
    try:
        disturb(trial)
        trial.finish()
        equal = "yes" if contents(folder / "results") == expected else "NO"
        jobs = trial.accounting()
    except (TimeoutError, subprocess.TimeoutExpired, AssertionError, LookupError) as error:
        equal, jobs = f"NO ({type(error).__name__}: {error})", ""
        for process in trial.drivers:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    seconds = "" if trial.recovered is None else f"{trial.recovered:.0f}"
    codes = ", ".join(map(str, trial.codes))
    (folder / "printed.txt").write_text("\n".join(trial.lines))
    return f"| {disturb.__doc__} | {shown(trial.lines)} | {seconds} | {codes} | {jobs} | {equal} |"


def shown(lines: list[str]) -> str:
    """Return the lines that say something of a disturbance, each once, without ids."""
    kept: dict[str, str] = {}
    for line in lines:
        if waits := re.search(r"in the queue \(([^)]*)\)", line):
            kept.setdefault(waits[1], f"in the queue ({waits[1]})")
        elif not _QUIET.search(line) and not line.startswith(("  ", "20")):
            text = line.replace("|", "/")
            kept.setdefault(re.sub(r"\d+(_\d+)?", "#", text)[:60], text[:160])
    return "<br>".join(list(kept.values())[:4]) or "nothing"


def main() -> None:
    """Run the rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of rows")
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="disturbances-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    cluster = Cluster(work / "c")
    assert dev_cluster("up", cluster.folder).returncode == 0
    os.environ["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
    heads = ("disturbance", "printed", "seconds", "exit codes", "jobs in accounting", "arrays equal")
    table = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    try:
        (work / "inline").mkdir()
        inline = command(write_paced(work / "inline", **CHANGES), backend="inline")
        assert inline.wait(timeout=300) == 0
        expected = contents(work / "inline" / "results")
        for disturb in ROWS:
            if not options.only or disturb.__name__ in options.only:
                table.append(row(disturb, cluster, work / disturb.__name__, expected))
                print(table[-1], flush=True)
                if options.out:
                    options.out.write_text("\n".join(table) + "\n")
                cluster.settle()
    finally:
        dev_cluster("down", cluster.folder, "--delete")
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
