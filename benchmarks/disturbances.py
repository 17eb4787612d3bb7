"""What an experiment on SLURM makes of disturbances: the table of docs/disturbances.md, from runs on a cluster.

    python -m benchmarks.disturbances [--only NAME ...] [--out table.md]

Starts `slurm/dev_cluster` for itself. Each row runs the same three trainings of tests/light_jobs.py, disturbs them, and
if the run ends with failures, gives the same command once more. A row tells what the run printed, after how many
seconds the disturbed work went on, the exit codes, the jobs in the accounting, and whether all arrays are those of a
run in one process.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.disturbance_rows import ROWS
from benchmarks.disturbance_trial import CHANGES, Trial
from tests.experiments import command, contents, write_experiment
from tests.slurm.cluster import Cluster, dev_cluster

_QUIET = re.compile(r"tasks (done|to do)|^Report:|^Curves:|SLURM commands|local scheduler|^Nothing|^$|has no method")


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
            text = re.sub(r"/\S*/results/", "results/", line.replace("|", "/"))
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
        inline = command(write_experiment(work / "inline", **CHANGES), light=True)
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
