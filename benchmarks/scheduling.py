"""The cost of scheduling: experiments of many tasks whose jobs do nothing, through the real worker.

    python -m benchmarks.scheduling [--tasks 1000 4000 10000 50000] [--stock-up-to 4000] [--only local luigid] [--plan]

Every measurement is a process of its own. Prints wall and CPU seconds of the run (from the file to the report), how
many of the CPU seconds its jobs took to create their files, which depends on the disk under $TMPDIR alone, the largest
memory of driver and server, and CPU seconds of the server. "stock" is Luigi's own scheduler
(local, or its own luigid with the packaged luigi.cfg) with the same worker; it needs time that grows with the square
of the number of tasks, so it ends at `--stock-up-to`. `--plan` also measures `plan`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import luigi
import luigi.rpc
import luigi.scheduler
import yaml

from luigi_prune.execution.job import Backend, Job, Listener, Outcome
from luigi_prune.workflow import luigi_integration
from luigi_prune.workflow.tasks import RunExperiment

METHODS = ("ThresNet", "UniNet", "SnipNet", "SiPPNet", "FilterThresNet", "SoftNet", "ThiNet", "PFPNet")
RATIOS = 20
REPETITIONS = 2


class IdleBackend(Backend):
    """Creates an empty result at once."""

    name = "idle"
    slots = 4
    cpu = 0.0  # seconds of the jobs

    def submit(self, job: Job, listener: Listener) -> None:
        """Touch the output."""
        listener.started()
        began = time.thread_time()
        output = Path(job.output)
        try:
            output.touch()
        except FileNotFoundError:
            output.parent.mkdir(parents=True)
            output.touch()
        self.cpu += time.thread_time() - began
        listener.ended(Outcome("done"))

    def close(self) -> None:
        """Do nothing."""


def write_file(folder: Path, tasks: int, methods: tuple[str, ...] = METHODS, mode: str = "cascade") -> Path:
    """Write an experiment of about `tasks` tasks and return its path."""
    per_net = 3 * len(methods) * RATIOS * REPETITIONS
    training = {
        "numEpochs": 30, "batchSize": 128, "loss": "CrossEntropyLoss", "optimizer": "SGD",
        "optimizerKwargs": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
        "transformsFinal": [{"type": "ToTensor"}],
        "metricsTest": [{"type": "TopK", "kwargs": {"topk": 1}}, {"type": "TopK", "kwargs": {"topk": 5}}],
        "lrSchedulers": [{"type": "MultiStepLR", "stepKwargs": {"milestones": [10]}, "kwargs": {"gamma": 0.1}}],
    }  # fmt: skip
    file = folder / f"scale{tasks}.yaml"
    content: dict[str, Any] = {
        "network": {"name": "lenet300_100", "dataset": "Digits", "outputSize": 10},
        "training": training,
        "retraining": {"startEpoch": 10},
        "directories": {"results": str(folder / "results")},
        "experiments": {
            "methods": list(methods), "mode": mode, "numRepetitions": REPETITIONS,
            "numNets": max(1, round(tasks / per_net)), "plotting": {"minVal": 0.02, "maxVal": 0.9},
            "spacing": [{"type": "geometric", "numIntervals": RATIOS, "maxVal": 0.9, "minVal": 0.01}],
            "retrainIterations": -1,
        },
    }  # fmt: skip
    file.write_text(yaml.safe_dump(content))
    return file


def own_figures() -> tuple[float, float]:
    """Return this process' CPU seconds, and its largest memory in MB."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def drive(file: str, kind: str, url: str) -> None:
    """Run an experiment in this process and print its figures as JSON."""
    backend = IdleBackend()
    luigi_integration.choose = lambda settings: backend  # type: ignore[assignment, return-value]
    factory = luigi_integration.SchedulerWorkerFactory()
    if kind == "stock":
        factory.create_local_scheduler = lambda: luigi.scheduler.Scheduler(  # type: ignore[method-assign]
            prune_on_get_work=True, record_task_history=False
        )
    (cpu_before, _), began = own_figures(), time.perf_counter()
    where: dict[str, Any] = {"scheduler_url": url} if url else {"local_scheduler": True}
    with contextlib.redirect_stdout(io.StringIO()):
        result: Any = luigi.build([RunExperiment(config=file)], worker_scheduler_factory=factory, log_level="WARNING",
                                  detailed_summary=True, **where)  # fmt: skip
    wall, (cpu, memory) = time.perf_counter() - began, own_figures()
    done = sum(1 for _, status, _ in result.worker._add_task_history if status == "DONE")
    if not result.scheduling_succeeded:
        raise SystemExit("the run failed")
    print(json.dumps({"tasks": done, "wall": wall, "cpu": cpu - cpu_before, "jobs": backend.cpu, "memory": memory}))


@contextlib.contextmanager
def server(kind: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Start luigid, Luigi's own or ours; its address and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "luigid").mkdir()
    options = ["--port", str(port), "--address", "127.0.0.1", "--state-path", str(folder / "luigid" / "state.pickle")]
    code = "import luigi_prune; from luigi.cmdline import luigid; luigid()"
    command = ["-c", code] if kind == "stock" else ["-m", "luigi_prune", "luigid"]
    process = subprocess.Popen([sys.executable, *command, *options], cwd=folder / "luigid", stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/", process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def figures_of(pid: int) -> tuple[float, float]:
    """Return the CPU seconds and the largest memory in MB of another process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak[1]) / 1024 if peak else math.nan


def measure(tasks: int, kind: str, over: str) -> dict[str, Any]:
    """Return the figures of one run."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        file, url, pid = write_file(folder, tasks), "", 0
        if over == "luigid":
            url, pid = stack.enter_context(server(kind, folder))
        command = [sys.executable, "-m", "benchmarks.scheduling", "--drive", str(file), "--kind", kind, "--url", url]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise SystemExit(ran.stderr[-2000:])
        figures: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        if pid:
            figures["server_cpu"], figures["server_memory"] = figures_of(pid)
        return figures


def measure_plan(tasks: int) -> tuple[float, float]:
    """Return the wall and CPU seconds of `plan` as a command."""
    with tempfile.TemporaryDirectory() as name:
        file = write_file(Path(name), tasks)
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "luigi_prune", "plan", str(file)], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.perf_counter() - began, cpu


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[1000, 4000, 10_000, 50_000])
    parser.add_argument("--stock-up-to", type=int, default=4000)
    parser.add_argument("--only", nargs="*", default=["local", "luigid"])
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--kind", default="ours", help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        return drive(options.drive, options.kind, options.url)
    print("scheduler            | tasks | wall s | driver CPU s | of it jobs | driver MB | server CPU s | server MB")
    for over in options.only:
        for tasks in options.tasks:
            for kind in ["stock"] * (tasks <= options.stock_up_to) + ["ours"]:
                figures = measure(tasks, kind, over)
                line = f"{kind + ', ' + over:20} | {figures['tasks']:5} | {figures['wall']:6.1f} "
                line += f"| {figures['cpu']:12.1f} "
                line += f"| {figures['jobs']:10.1f} | {figures['memory']:9.0f} "
                server_figures = (figures.get("server_cpu", math.nan), figures.get("server_memory", math.nan))
                print(line + "| {:12.1f} | {:9.0f}".format(*server_figures), flush=True)
    for tasks in options.tasks if options.plan else ():
        print("plan of {} tasks: {:.1f} s, CPU {:.1f} s".format(tasks, *measure_plan(tasks)), flush=True)


if __name__ == "__main__":
    main()
