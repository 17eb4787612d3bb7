"""Job functions for the tests of the SLURM backend, called in SLURM jobs."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from luigi_prune.errors import DamagedResult, Interrupted, OutOfMemory, Superseded
from luigi_prune.execution import claims
from luigi_prune.execution.job import Context
from luigi_prune.identity.paths import checkpoint_path


def write(request: dict[str, Any], context: Context) -> None:
    """Write what the process saw of its surroundings."""
    facts = {"rank": context.rank, "world_size": context.world_size, "host": os.uname().nodename}
    facts |= {"job_id": context.job_id, "gpus": context.gpus, "threads": os.environ["OMP_NUM_THREADS"]}
    facts |= {"together": list(context.together)}
    facts |= {"visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""), "init_method": context.init_method}
    if context.rank:
        Path(f"{request['output']}.{context.rank}").write_text(json.dumps(facts))
    else:
        Path(request["output"]).write_text(json.dumps(facts))


def fail(request: dict[str, Any], context: Context) -> None:
    raise ValueError("the seventh layer is missing")


def count(request: dict[str, Any], context: Context) -> None:
    """Count to `steps`, as a training would: a checkpoint every `every` steps, and one when asked to stop.

    It ends before that if the file `until` exists. Writes its count, and the counts at which it began, one per start.
    """
    checkpoint = checkpoint_path(request["output"])
    done = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"count": 0, "starts": []}
    done["starts"].append(done["count"])
    while done["count"] < request["steps"] and not os.path.exists(request.get("until", "/nowhere")):
        time.sleep(request.get("pause", 0.1))
        done["count"] += 1
        context.progress(done["count"] / request["steps"], f"step {done['count']}")
        stop = context.should_stop()
        if stop or done["count"] % request.get("every", 5) == 0:
            checkpoint.with_suffix(".part").write_text(json.dumps(done))
            checkpoint.with_suffix(".part").rename(checkpoint)
        if stop:
            raise Interrupted(f"stopped behind step {done['count']}")
    Path(request["output"]).write_text(json.dumps(done))
    checkpoint.unlink(missing_ok=True)


def act(request: dict[str, Any], context: Context) -> None:
    """Do what the request asks for: jobs that share a process have one function."""
    context.log_line(f"{request['act']} in the company of {len(context.together)}")
    globals()[request["act"]](request, context)


def lack_memory(request: dict[str, Any], context: Context) -> None:
    raise OutOfMemory("too little memory")


def read_damage(request: dict[str, Any], context: Context) -> None:
    raise DamagedResult(request["output"] + ".input", "checksum")


def fill_the_disk(request: dict[str, Any], context: Context) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), request["output"])


def be_superseded(request: dict[str, Any], context: Context) -> None:
    """Have another run claim the result, then write it as jobs do."""
    claims.make_claim(request["output"], "", 0, claims.last_attempt(request["output"]) + 1)
    if context.is_superseded():
        raise Superseded("another run has taken over")
    Path(request["output"]).write_text("{}")


def doze(request: dict[str, Any], context: Context) -> None:
    """Sleep, with nothing to save."""
    time.sleep(request["seconds"])
    Path(request["output"]).write_text("{}")


def vanish(request: dict[str, Any], context: Context) -> None:
    """Die at once, as the memory killer would have it; of several processes, the one with rank 1."""
    if context.rank == context.world_size - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def eat(request: dict[str, Any], context: Context) -> None:
    """Take memory, and keep it."""
    taken = bytearray(request["megabytes"] * 1_000_000)
    time.sleep(600)
    del taken


def leave(request: dict[str, Any], context: Context) -> None:
    """End without a result."""
    os._exit(0)


def add_ranks(request: dict[str, Any], context: Context) -> None:
    """Add up the ranks of all processes with gloo."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=context.init_method, rank=context.rank, world_size=context.world_size)
    total = torch.tensor([context.rank + 1.0])
    dist.all_reduce(total)
    if context.rank == 0:
        Path(request["output"]).write_text(json.dumps({"total": total.item()}))
    dist.barrier()
    dist.destroy_process_group()


class _LastSignal:
    """Sends a signal to its process when Python clears its modules, later than any handler of Python's runs."""

    def __init__(self, number: int):
        self.send = functools.partial(os.kill, os.getpid(), number)

    def __del__(self) -> None:
        self.send()


def write_and_be_told_to_stop(request: dict[str, Any], context: Context) -> None:
    """Write the result, and get a signal at the very end of the process."""
    Path(request["output"]).write_text("{}")
    globals()["last"] = _LastSignal(request["signal"])
