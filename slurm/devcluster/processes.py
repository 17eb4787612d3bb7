"""Processes of daemons and jobs: starting them, finding them by their environment, ending them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PATH = os.pathsep.join(["/usr/local/sbin", "/usr/sbin", "/sbin", os.environ.get("PATH", os.defpath)])


class ClusterError(Exception):
    """An error that the user gets as one line."""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return what a client or a daemon of this cluster needs, without any other cluster's variables."""
    kept = {k: v for k, v in os.environ.items() if not re.match("SLURM|SBATCH|SRUN|SINFO|SQUEUE|SACCT|MUNGE", k)}
    return {**kept, "PATH": PATH, "LC_ALL": "C", "SLURM_CONF": f"{folder}/etc/slurm.conf", **more}


def environment_of(pid: int) -> dict[str, str]:
    """Return a process's environment, {} for one that is gone or someone else's."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(entry.partition("=")[::2] for entry in entries if entry)


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def cluster_processes(folder: Path) -> dict[int, str]:
    """Return pid -> daemon's name, or job's node ("" outside the nodes); short-lived clients are left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            variables = environment_of(int(entry.name))
            ours = variables.get("SLURM_CONF") == f"{folder}/etc/slurm.conf"
            if ours and ("DEV_CLUSTER_DAEMON" in variables or "SLURM_JOB_ID" in variables) and alive(int(entry.name)):
                name = variables.get("DEV_CLUSTER_DAEMON") or variables.get("SLURMD_NODENAME", "")
                found[int(entry.name)] = name
    return found


def daemon(folder: Path, name: str) -> int | None:
    """Return the pid of a daemon of this cluster that runs."""
    try:
        pid = int((folder / "pids" / name).read_text())
    except (OSError, ValueError):
        return None
    ours = environment_of(pid).get("DEV_CLUSTER_DAEMON", name) == name  # the pid may have been reused
    return pid if ours and alive(pid) else None


def start(folder: Path, name: str, command: list[str], **variables: str) -> int:
    """Start a daemon in its own session, return its pid; what it prints goes to DIR/log/<name>.out."""
    with open(folder / "log" / f"{name}.out", "a") as output:
        process = subprocess.Popen(
            command,
            env=environment(folder, DEV_CLUSTER_DAEMON=name, **variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
    (folder / "pids" / name).write_text(f"{process.pid}\n")
    return process.pid


def stop(folder: Path, name: str, number: signal.Signals = signal.SIGTERM) -> None:
    """End a daemon; one that ignores the signal for 10 s is killed."""
    pid = daemon(folder, name)
    if pid is not None:
        kill([pid], number)
        if not eventually(lambda: not alive(pid), 10):
            kill([pid])
            eventually(lambda: not alive(pid), 5)
    (folder / "pids" / name).unlink(missing_ok=True)


def kill(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_all(select: Callable[[], list[int]]) -> list[int]:
    """Kill what `select` finds until it finds nothing for 5 s at most; return what survived."""
    for _ in range(100):
        pids = select()
        if not pids:
            return []
        kill(pids)
        time.sleep(0.05)
    return select()


def eventually(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def await_daemon(folder: Path, name: str, ready: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until a daemon is ready; raises ClusterError if it ends before, or takes too long."""
    if not eventually(lambda: ready() or daemon(folder, name) is None, seconds):
        raise ClusterError(f"{what}: not within {seconds:g} s")
    if daemon(folder, name) is None:
        raise ClusterError(f"{what}: {name} ended")


def answers(address: str | tuple[str, int]) -> bool:
    """Return whether a process listens on a socket path or on a host and port."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        return connection.connect_ex(address) == 0


def ask(folder: Path, *command: str, seconds: float = 20) -> str | None:
    """Return what a SLURM command prints, None if it fails."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=seconds)
        return done.stdout if done.returncode == 0 and not done.stderr else None
    return None
