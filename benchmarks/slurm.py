"""The cost of SLURM jobs for the driver, on a cluster of `slurm/dev_cluster` (or a real one).

    . DIR/env.sh; python benchmarks/slurm.py waiting [--jobs 300] [--seconds 60]
    . DIR/env.sh; python benchmarks/slurm.py run [--config sample/digits.yaml] [--width 16]

`waiting` holds that many jobs in the queue and measures the waiting processes: of this package's driver, and of stock
submitit in Luigi's forked workers (`job.result()` in `run()`). It prints processes, memory (PSS), CPU time and calls of
SLURM's commands, from the time when all jobs are in the queue. `run` runs an experiment through SLURM and inline,
compares all arrays, and compares the wall time with the best possible one for the jobs' durations and the width.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from luigi_prune.config.loader.includes import find_file
from luigi_prune.results.hdf5_file import read_about

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel")
STOCK = """
import time
import luigi
import submitit

class Wait(luigi.Task):
    number = luigi.IntParameter()

    def run(self):
        executor = submitit.SlurmExecutor("stock")
        executor.update_parameters(time=60, additional_parameters={"hold": True}, wckey=None)
        executor.submit(time.sleep, 1).result()

class All(luigi.WrapperTask):
    jobs = luigi.IntParameter()

    def requires(self):
        return [Wait(number) for number in range(self.jobs)]
"""


def main() -> None:
    """Run the benchmark named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    waiting_parser = commands.add_parser("waiting")
    waiting_parser.add_argument("--jobs", type=int, default=300)
    waiting_parser.add_argument("--seconds", type=float, default=60)
    run_parser = commands.add_parser("run")
    run_parser.add_argument("--config", default="sample/digits.yaml")
    run_parser.add_argument("--width", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="luigi_prune_", dir=os.environ.get("TMPDIR")) as folder:
        if arguments.command == "waiting":
            waiting(Path(folder), arguments.jobs, arguments.seconds)
        else:
            run(Path(folder), arguments.config, arguments.width)


# ------------------------------------------------------------------------------------------------------------- waiting


def waiting(folder: Path, jobs: int, seconds: float) -> None:
    """Print the cost of waiting for `jobs` held jobs, for both drivers."""
    experiment = {
        "network": {"name": "lenet300_100", "dataset": "Digits"},
        "training": {"file": "training/digits/resnet.yaml"},
        "experiments": {
            "methods": [],
            "mode": "retrain",
            "numNets": jobs,
            "spacing": [{"type": "manual", "values": [0.5]}],
        },
    }
    (folder / "wide.yaml").write_text(yaml.safe_dump(experiment))
    (folder / "luigi.cfg").write_text("[compute]\nbackend=slurm\ndevice=cpu\n[slurm]\nhold=true\n")
    (folder / "stock.py").write_text(STOCK)
    common = ["--workers", str(jobs), "--local-scheduler"]
    ours = ["--module", "luigi_prune", "RunExperiment", "--config", "wide.yaml", *common]
    stock = ["--module", "stock", "All", "--jobs", str(jobs), *common]
    print(f"{jobs} jobs in the queue, measured for {seconds:.0f} s")
    print(
        f"{'':14}{'processes':>10}{'PSS MB':>10}{'CPU s':>10}{'% of a core':>13}"
        "  calls until all were queued / while waiting"
    )
    for name, options in (("luigi_prune", ours), ("stock submitit", stock)):
        with counted(folder / name) as (environment, calls):
            environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment.get("PYTHONPATH", "")])
            driver = subprocess.Popen(
                [sys.executable, "-m", "luigi", *options],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                while queued() < jobs:
                    assert driver.poll() is None, f"{name} ended"
                    time.sleep(2)
                before, cpu = calls(), cpu_seconds(driver.pid)
                time.sleep(seconds)
                spent = cpu_seconds(driver.pid) - cpu
                pids = processes_of(driver.pid)
                more = calls() - before
                print(
                    f"{name:14}{len(pids):>10}{sum(map(pss, pids)) / 1e6:>10.0f}{spent:>10.2f}"
                    f"{100 * spent / seconds:>13.1f}  {dict(before)} / {dict(more)}",
                    flush=True,
                )
            finally:
                os.killpg(driver.pid, signal.SIGKILL)
                driver.wait()
                subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)
                while queued():
                    time.sleep(1)


@contextmanager
def counted(folder: Path) -> Iterator[tuple[dict[str, str], object]]:
    """Yield an environment in which SLURM's commands are counted, and a function that returns the counts so far."""
    folder.mkdir()
    record = folder / "calls"
    record.touch()
    for name in COMMANDS:
        script = folder / name
        script.write_text(f'#!/bin/sh\necho {name} >> "{record}"\nexec {shutil.which(name)} "$@"\n')
        script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    yield environment, lambda: Counter(record.read_text().split())


def queued() -> int:
    """Return the number of this user's jobs in the queue."""
    text = subprocess.run(
        ["squeue", "-h", "-r", f"--user={os.getuid()}"], capture_output=True, text=True, check=True
    ).stdout
    return len(text.splitlines())


def processes_of(session: int) -> list[int]:
    """Return the processes of a session, except SLURM commands that are running at this moment."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "comm").read_text().strip()
        except OSError:
            continue
        if int(fields[3]) == session and command not in (*COMMANDS, "sh"):
            pids.append(int(path.parent.name))
    return pids


def cpu_seconds(session: int) -> float:
    """Return the CPU time of a session's processes and of the children that they have waited for."""
    ticks = 0
    for pid in processes_of(session):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> int:
    """Return a process's proportional set size in bytes, 0 if it has ended."""
    try:
        match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


# ----------------------------------------------------------------------------------------------------------------- run


def run(folder: Path, config: str, width: int) -> None:
    """Run an experiment inline and through SLURM, and print the comparison."""
    file = find_file(config).resolve()
    hashes, seconds = {}, {}
    for backend in ("inline", "slurm"):
        results = folder / backend
        (folder / "luigi.cfg").write_text(
            f"[compute]\nbackend={backend}\ndevice=cpu\n[slurm]\npoll_seconds=5\ntimeout_min=60\n"
            f"[directories]\nresults={results}\n"
        )
        began = time.perf_counter()
        command = [sys.executable, "-m", "luigi", "--module", "luigi_prune", "RunExperiment", "--config", str(file)]
        command += ["--workers", str(width) if backend == "slurm" else "1", "--local-scheduler"]
        completed = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        seconds[backend] = time.perf_counter() - began
        hashes[backend] = {
            str(path.relative_to(results)): read_about(path)["content_sha256"] for path in results.rglob("*.h5")
        }
        print(
            "\n".join(
                line for line in completed.stdout.splitlines() if "SLURM commands:" in line or "tasks done in" in line
            )
        )
    equal = sum(hashes["inline"].get(name) == content for name, content in hashes["slurm"].items())
    print(f"{equal} of {len(hashes['slurm'])} results have equal arrays ({len(hashes['inline'])} inline)")
    total, longest = accounted(folder / "slurm")
    ideal = max(total / width, longest)
    print(
        f"inline {seconds['inline']:.0f} s; SLURM {seconds['slurm']:.0f} s; jobs {total:.0f} s, {width} at once: "
        f"ideal {ideal:.0f} s, wall time over ideal {seconds['slurm'] / ideal:.2f}"
    )


def accounted(results: Path) -> tuple[float, float]:
    """Return the seconds of all jobs of a run by SLURM's accounting, and those of its longest chain of tasks."""
    ids = {}
    for path in results.rglob("*.h5"):
        about = read_about(path)["provenance"]
        if about.get("job"):
            ids[str(path)] = (
                about["job"],
                [str((path.parent / p["path"]).resolve()) for p in about["parents"].values()],
            )
    text = subprocess.run(
        ["sacct", "-X", "-n", "-P", "-o", "JobID,ElapsedRaw", "-j", ",".join({job for job, _ in ids.values()})],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    elapsed = {job: float(took) for job, took in (line.split("|") for line in text.splitlines())}
    taken = {str(Path(path).resolve()): (elapsed.get(job, 0.0), parents) for path, (job, parents) in ids.items()}

    def chain(path: str) -> float:
        took, parents = taken.get(path, (0.0, []))
        return took + max((chain(parent) for parent in parents), default=0.0)

    return sum(elapsed.values()), max(map(chain, taken), default=0.0)


if __name__ == "__main__":
    main()
