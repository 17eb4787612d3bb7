"""The disturbances of benchmarks/disturbances.py: a function each, whose first line names it in the table."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

from benchmarks.disturbance_trial import SETTINGS, Trial


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
    """slurmd of a job's node dies: the job goes on there, and SLURM starts it again elsewhere"""
    (trial.folder / "pace").write_text("2")
    trial.drive()
    _, node = trial.running()[0]
    trial.cluster.stop_slurmd(node)
    trial.restarts_within()


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
    trial.settings += "[slurm.TrainBase]\nhold=true\n"
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
    (trial.folder / "pace").write_text("2.5")
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
    """too little memory (mem_gb=0.2); the command again with more"""
    trial.settings += "mem_gb=0.2\n"
    (trial.folder / "hungry").write_text("400_000_000")
    trial.drive()
    trial.recovered = trial.until(lambda: trial.said("out of memory"))
    (trial.folder / "hungry").unlink()


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
