"""Entry point of a SLURM job's processes: runs the job function and reports heartbeats and the outcome.

`python -m` runs it with the folder of a submission; the array index selects the requests (elements.py).
Signals: on USR2 (time limit near, or preemption), save and requeue; on SIGTERM (scancel, an admin's requeue, a drained
node), save and end. Both only set a flag that a training polls after every step; a job that has not polled it yet ends
at once on SIGTERM.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from luigi_prune.execution import claims
from luigi_prune.execution.bundles import run_members
from luigi_prune.execution.job import Context, Job, Outcome
from luigi_prune.execution.output import write_output_to
from luigi_prune.execution.slurm.elements import jobs_of
from luigi_prune.execution.slurm.heartbeat import HeartbeatWriter, heartbeat_path
from luigi_prune.execution.slurm.member import Member

logger = logging.getLogger("luigi_prune.execution.slurm.entrypoint")  # __name__ is __main__ in a job

EXIT_INTERRUPTED = 85
_RENDEZVOUS_SECONDS = 300.0
_REQUEUE_SECONDS = 120.0


class StopFlag:
    """Set by USR2 and SIGTERM, polled by the job function."""

    def __init__(self) -> None:
        self.action = ""  # "requeue" or "end", by the last signal
        self.polled = False  # whether the job function polls the flag

    def install(self) -> None:
        """Handle USR2 and SIGTERM from now on."""
        owner = os.getpid()

        def on_signal(number: int, frame: object) -> None:
            if os.getpid() != owner:
                return  # a data loader worker: only its parent reacts
            self.action = "requeue" if number == signal.SIGUSR2 else "end"
            if number == signal.SIGTERM and not self.polled:
                raise SystemExit(EXIT_INTERRUPTED)

        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, on_signal)

    def should_stop(self) -> bool:
        """Return whether to save and stop."""
        self.polled = True
        return bool(self.action)


def run(submission: str) -> NoReturn:
    """Run the jobs of this process, of the submission in folder `submission`, and exit."""
    flag = StopFlag()
    flag.install()
    folder, element = Path(submission), int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))
    requests = {index: json.loads((folder / f"{index}.json").read_text()) for index in jobs_of(folder, element)}
    settings = next(iter(requests.values()))  # those of all of them
    os.chdir(settings["directory"])
    rank = int(os.environ.get("SLURM_PROCID", 0))
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    due = []
    for index, request in requests.items():
        job = Job(**request["job"])
        claim = claims.newest(job.output)
        if Path(job.output).exists() or claim is None or (claim.name, claim.index) != (folder.name, index):
            print(f"{job.name}: the result exists, or another job computes it; nothing to do")
        else:
            due.append((job, claim.attempt, HeartbeatWriter(heartbeat_path(folder, index), restart, rank)))
    if not due:
        raise SystemExit(0)
    output = due[0][0].log
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    write_output_to(output)
    members = [Member(*each, output, _slurm_id(), shared=len(due) > 1) for each in due]
    _run_members(members, settings["context"], flag, folder, next(iter(requests)), restart)
    _end(members, flag, rank)


def _run_members(
    members: list[Member], settings: dict[str, Any], flag: StopFlag, folder: Path, index: int, restart: int
) -> None:
    began = time.monotonic()
    try:
        context = _context(settings, folder, index, restart)
        contexts = [member.context(context, flag.should_stop) for member in members]
        name = members[0].job.name
        logger.info("%s: process %d of %d, SLURM job %s", name, context.rank + 1, context.world_size, _slurm_id())
        run_members([member.job for member in members], contexts, lambda i, outcome: members[i].end(outcome))
        return
    except SystemExit:
        message = traceback.format_exc()
        outcome = Outcome("failed", message, seconds=time.monotonic() - began)
        if flag.action:
            outcome = Outcome("interrupted", "stopped before there was anything to save")
    except BaseException:  # including KeyboardInterrupt: every end is reported
        outcome = Outcome("failed", traceback.format_exc(), seconds=time.monotonic() - began)
    for member in members:
        member.end(outcome)


def _end(members: list[Member], flag: StopFlag, rank: int) -> NoReturn:
    """Report the outcomes that are still to report, and exit.

    Once there is nothing left to stop, signals are ignored: Python restores the default action of USR2 before it ends,
    and a job that has written its result would end as FAILED.
    """
    interrupted = [member for member in members if member.is_interrupted]
    signal.signal(signal.SIGTERM, signal.SIG_DFL if interrupted else signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if interrupted and rank > 0:
        raise SystemExit(0)  # another exit code would kill rank 0 before it can requeue the job
    if interrupted and flag.action == "requeue" and _requeue(interrupted):
        time.sleep(_REQUEUE_SECONDS)  # until SLURM, having requeued the job, ends this process
    for member in members:
        member.report()
    sys.stdout.flush()
    sys.stderr.flush()
    if interrupted:
        raise SystemExit(EXIT_INTERRUPTED)
    raise SystemExit(int(any(member.has_failed for member in members)))


def _requeue(members: list[Member]) -> bool:
    """Requeue this job and return whether that worked; if the site forbids it, the driver submits the job again.

    An element is requeued as <array>_<task>: the last one to start has the array's number as its own job id, which
    would requeue all elements.
    """
    for member in members:
        member.writer.progress(0.0, "back into the queue")
    try:
        done = subprocess.run(["scontrol", "requeue", _slurm_id()], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("scontrol requeue failed: %s", error)
        return False
    if done.returncode:
        logger.warning("scontrol requeue failed: %s", done.stderr.strip())
    return done.returncode == 0


def _slurm_id() -> str:
    """Return the id of this job as squeue prints it: 12, or 12_3 in an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")


def _context(settings: dict[str, Any], folder: Path, index: int, restart: int) -> Context:
    """Return this process's context: rank, device, rendezvous of the job's processes; `settings` are the request's."""
    world_size, rank = int(os.environ.get("SLURM_NTASKS", 1)), int(os.environ.get("SLURM_PROCID", 0))
    init_method = ""
    if world_size > 1:
        several_nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", 1)) > 1
        init_method = _rendezvous(folder / f"{index}.rendezvous-{restart}", rank, several_nodes)
        if not several_nodes and os.path.isdir("/sys/class/net/lo"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return Context(
        threads=settings["threads"],
        rank=rank,
        world_size=world_size,
        init_method=init_method,
        device=_device(settings["device"]),
        loader_workers=settings["loader_workers"],
        deterministic=settings.get("deterministic", False),  # missing in requests of older versions
        gpus=settings["gpus"],
        job_id=_slurm_id(),
    )


def _device(setting: str) -> str:
    """Return this process's device for the setting cpu, cuda or auto."""
    if setting == "cpu":
        return "cpu"
    import torch

    count = torch.cuda.device_count()
    if not count and setting == "auto":
        return "cpu"
    # each process may see only its own GPU or all GPUs of the node, depending on srun
    return f"cuda:{int(os.environ.get('SLURM_LOCALID', 0)) % max(1, count)}"


def _rendezvous(path: Path, rank: int, several_nodes: bool) -> str:
    """Return the init_method of the process group: rank 0 picks a free port and writes the address to `path`.

    Each restart has its own file, so that no process uses the address of an earlier one. Raises TimeoutError.
    """
    if rank == 0:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        private = path.with_name(f".{path.name}")
        private.write_text(f"tcp://{_address() if several_nodes else '127.0.0.1'}:{port}")
        os.replace(private, path)
    deadline = time.monotonic() + _RENDEZVOUS_SECONDS
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            return path.read_text()
        os.listdir(path.parent)  # makes a network file system refresh its cache
        time.sleep(0.2)
    raise TimeoutError(f"rank 0 did not write {path} within {_RENDEZVOUS_SECONDS:.0f} s")


def _address() -> str:
    """Return a name or address of this node that other nodes can reach."""
    name = socket.gethostname()
    with suppress(OSError):
        if not socket.gethostbyname(name).startswith("127."):
            return name
    return os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or name


if __name__ == "__main__":
    run(sys.argv[1])
