"""Job functions for the tests of the backends, called in the jobs' own processes."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from luigi_prune.execution.job import Context


def _note(request: dict[str, Any], context: Context, **facts: Any) -> None:
    """Write facts beside the output, one file per rank, whole or not at all."""
    path = Path(request["folder"]) / f"{request.get('tag', 'job')}-{context.rank}.json"
    path.with_suffix(".part").write_text(json.dumps({"pid": os.getpid(), **facts}))
    path.with_suffix(".part").rename(path)


def facts(request: dict[str, Any], context: Context) -> None:
    first_line = time.monotonic()
    _note(
        request,
        context,
        first_line=first_line,
        torch="torch" in sys.modules,
        main=getattr(sys.modules["__main__"], "__file__", None),
        environment=dict(os.environ),
        rank=context.rank,
        world_size=context.world_size,
        init_method=context.init_method,
        device=context.device,
        threads=context.threads,
        server=os.getppid(),
        server_threads=len(os.listdir(f"/proc/{os.getppid()}/task")) if os.path.isdir("/proc/self") else 1,
        group=os.getpgrp(),
        directory=os.getcwd(),
        last_line=time.monotonic(),
    )


def log_a_line(request: dict[str, Any], context: Context) -> None:
    logging.getLogger("luigi_prune.training").info("epoch 3 of 7")
    print("printed")
    subprocess.run(["echo", "said by a child"], check=True)


def fail(request: dict[str, Any], context: Context) -> None:
    raise ValueError("the seventh layer is missing")


def leave(request: dict[str, Any], context: Context) -> None:
    print("a line before the end", flush=True)
    os._exit(3)


def crash(request: dict[str, Any], context: Context) -> None:
    for number in range(30):
        print(f"line {number}")
    os.kill(os.getpid(), signal.SIGKILL)


def hold(request: dict[str, Any], context: Context) -> None:
    """Say that it began, then wait for the file `release`; stop when asked to, or not, as the request says."""
    _note(request, context, began=time.monotonic())
    folder = Path(request["folder"])
    while not (folder / "release").exists():
        if context.should_stop() and not request.get("stubborn"):
            (folder / f"{request.get('tag', 'job')}-{context.rank}.saved").touch()
            raise RuntimeError("stopped")
        time.sleep(0.01)
    with open(folder / "order.txt", "a") as order:
        order.write(f"{request.get('tag', 'job')}\n")


def hold_with_children(request: dict[str, Any], context: Context) -> None:
    """Hold, with a process of its own, forked like a data loader worker, and one that was executed."""
    if os.fork() == 0:
        while True:
            time.sleep(60)
    subprocess.Popen(["sleep", "600"])
    hold(request, context)


def hold_but_fail_rank(request: dict[str, Any], context: Context) -> None:
    """Rank 1 fails once rank 0 has begun; rank 0 holds."""
    if context.rank == 1:
        other = Path(request["folder"]) / f"{request.get('tag', 'job')}-0.json"
        while not other.exists():
            time.sleep(0.01)
        raise ValueError("rank one has had enough")
    hold(request, context)


def report_progress(request: dict[str, Any], context: Context) -> None:
    for step in range(2000):
        context.progress(step / 2000, f"step {step} " + "ä" * 1000)
    time.sleep(0.3)
    context.progress(0.5, "half")
    context.progress(1.0, "whole")


def leave_a_thread(request: dict[str, Any], context: Context) -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()


def sum_of_ranks(request: dict[str, Any], context: Context) -> None:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=context.init_method, rank=context.rank, world_size=context.world_size)
    total = torch.tensor([context.rank + 1.0])
    dist.all_reduce(total)
    _note(request, context, total=total.item())
    dist.destroy_process_group()


def wait_for_ranks(request: dict[str, Any], context: Context) -> None:
    """Wait in a collective that rank 1 never joins."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=context.init_method, rank=context.rank, world_size=context.world_size)
    _note(request, context)
    if context.rank == 1:
        time.sleep(600)
    dist.all_reduce(torch.ones(1))


def write_arrays(request: dict[str, Any], context: Context) -> None:
    """Write a small result, as jobs do."""
    import numpy as np

    from luigi_prune.jobs.outputs import write

    write(request, context, time.perf_counter(), {"x": np.arange(3)}, meta={})


def meet_a_full_disk(request: dict[str, Any], context: Context) -> None:
    """Raise what the library named in the request raises on a full disk."""
    import errno

    raise {
        "os": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), request["output"]),
        "quota": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        "hdf5": OSError("Can't synchronously write data (errno = 28, error message = 'No space left on device')"),
        "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos: No space left on device"),
    }[request["library"]]
