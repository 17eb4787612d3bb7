"""The other side of the SLURM backend: what one process of a job does before, around and after the job function.

submitit calls `run` with the folder of a submission; SLURM says which of its requests is meant. Signals: USR2 (time
limit near, or preemption) means to save and go back into the queue; SIGTERM (scancel, an admin's requeue, a drained
node) to save and end. Both only set a flag that the training looks at behind every step; a job that has nothing to save
ends at once.
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

from luigi_prune.execution import job_run
from luigi_prune.execution.job import Context, Job, Outcome
from luigi_prune.execution.output import write_output_to
from luigi_prune.execution.slurm import claims
from luigi_prune.execution.slurm.heartbeat import Herald, news_path

logger = logging.getLogger(__name__)

EXIT_INTERRUPTED = 85
_RENDEZVOUS_SECONDS = 300.0
_REQUEUE_SECONDS = 120.0


class Flag:
    """What the signals have asked for."""

    def __init__(self) -> None:
        self.wish = ""  # "requeue" or "end"; the last signal counts, and the end is always safe
        self.heeded = False  # whether the job looks at it

    def install(self) -> None:
        """Answer USR2 and SIGTERM, after submitit has set its own answers."""
        owner = os.getpid()

        def on_signal(number: int, frame: object) -> None:
            if os.getpid() != owner:
                return  # a data loader worker: its parent decides
            self.wish = "requeue" if number == signal.SIGUSR2 else "end"
            if number == signal.SIGTERM and not self.heeded:
                raise SystemExit(EXIT_INTERRUPTED)

        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, on_signal)

    def should_stop(self) -> bool:
        """Return whether to save and stop."""
        self.heeded = True
        return bool(self.wish)


def run(submission: str) -> NoReturn:
    """Run this process's job of the submission in a folder, and end the process; called by submitit."""
    folder, index = Path(submission), int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))
    request = json.loads((folder / f"{index}.json").read_text())
    os.chdir(request["directory"])
    job = Job(**request["job"])
    claim = claims.newest(job.output)
    if Path(job.output).exists() or claim is None or (claim.name, claim.index) != (folder.name, index):
        print(f"{job.name}: the result is there, or another job makes it; nothing to do")
        raise SystemExit(0)
    flag = Flag()
    flag.install()
    rank = int(os.environ.get("SLURM_PROCID", 0))
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    herald = Herald(news_path(folder, index), restart, rank)
    Path(job.log).parent.mkdir(parents=True, exist_ok=True)
    write_output_to(job.log)
    outcome = _run_job(job, request["context"], flag, herald, folder, index, restart)
    if outcome.status != "done":
        print(outcome.message, file=sys.stderr)
    _end(outcome, flag, herald, rank, job)


def _run_job(
    job: Job, given: dict[str, Any], flag: Flag, herald: Herald, folder: Path, index: int, restart: int
) -> Outcome:
    began = time.monotonic()
    try:
        context = _context(given, folder, index, restart)
        context.should_stop = flag.should_stop
        if context.rank == 0:
            context.progress = herald.progress
        logger.info("%s: process %d of %d, SLURM job %s", job.name, context.rank + 1, context.world_size, _own_id())
        return job_run.run(job, context)
    except SystemExit:
        if flag.wish:
            return Outcome("interrupted", "stopped before there was anything to save")
        return Outcome("failed", traceback.format_exc(), seconds=time.monotonic() - began)
    except BaseException:  # whatever ends the job function is told, never lost
        return Outcome("failed", traceback.format_exc(), seconds=time.monotonic() - began)


def _end(outcome: Outcome, flag: Flag, herald: Herald, rank: int, job: Job) -> NoReturn:
    """Tell how the job ended and end the process: with SystemExit, or submitit would write a pickle for nobody."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if outcome.status == "interrupted" and rank > 0:
        raise SystemExit(0)  # rank 0 decides; another exit code would kill it before it can
    if outcome.status == "interrupted" and flag.wish == "requeue" and _requeue(herald):
        time.sleep(_REQUEUE_SECONDS)  # SLURM ends this process as soon as it has put the job back
    if outcome.status == "done" and rank == 0:
        claims.release(job.output)
    herald.end(outcome)
    sys.stdout.flush()
    sys.stderr.flush()
    raise SystemExit({"done": 0, "interrupted": EXIT_INTERRUPTED}.get(outcome.status, 1))


def _requeue(herald: Herald) -> bool:
    """Ask SLURM to put this job back into the queue; the driver does it where the site forbids it."""
    herald.progress(0.0, "back into the queue")
    try:
        done = subprocess.run(
            ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("scontrol requeue failed: %s", error)
        return False
    if done.returncode:
        logger.warning("scontrol requeue failed: %s", done.stderr.strip())
    return done.returncode == 0


def _own_id() -> str:
    """Return the id of this job as people write it: 12, or 12_3 in an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")


def _context(given: dict[str, Any], folder: Path, index: int, restart: int) -> Context:
    """Return where this process runs: its rank, its GPU, the meeting point of all processes of the job."""
    world_size, rank = int(os.environ.get("SLURM_NTASKS", 1)), int(os.environ.get("SLURM_PROCID", 0))
    meeting_point = ""
    if world_size > 1:
        several_nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", 1)) > 1
        meeting_point = _meet(folder / f"{index}.rendezvous-{restart}", rank, several_nodes)
        if not several_nodes and os.path.isdir("/sys/class/net/lo"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return Context(
        threads=given["threads"],
        rank=rank,
        world_size=world_size,
        init_method=meeting_point,
        device=_device(given["device"]),
        loader_workers=given["loader_workers"],
        deterministic=given.get("deterministic", False),  # jobs that were submitted by an older version lack it
        gpus=given["gpus"],
        job_id=_own_id(),
    )


def _device(wanted: str) -> str:
    """Return this process's device; `wanted` is cpu, cuda or auto."""
    if wanted == "cpu":
        return "cpu"
    import torch

    count = torch.cuda.device_count()
    if not count and wanted == "auto":
        return "cpu"
    # srun may have given each process its own GPU, or all of them the GPUs of the node
    return f"cuda:{int(os.environ.get('SLURM_LOCALID', 0)) % max(1, count)}"


def _meet(path: Path, rank: int, several_nodes: bool) -> str:
    """Return the address where the processes meet: rank 0 picks a free port and writes it into the file `path`.

    A requeued job has another file, so that nobody waits at a meeting point of the run before.
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
        os.listdir(path.parent)  # makes a network file system look again
        time.sleep(0.2)
    raise TimeoutError(f"rank 0 did not write {path} within {_RENDEZVOUS_SECONDS:.0f} s")


def _address() -> str:
    """Return a name of this node that other nodes can reach."""
    name = socket.gethostname()
    with suppress(OSError):
        if not socket.gethostbyname(name).startswith("127."):
            return name
    return os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or name
