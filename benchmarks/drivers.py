"""Several drivers on one results folder, killed at random: how often is each result computed?

    python -m benchmarks.drivers [--runs 20] [--seed 0] [--real] [--slurm]

Two and four drivers, with a luigid that is killed at a random moment or without any, of one experiment or of two that
share tasks. In every run one driver is killed, and another one is started. See docs/several_drivers.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tests.experiments import contents
from tests.several_drivers import Drivers, disturbed_run
from tests.slurm.cluster import Cluster, dev_cluster

_SETUPS = list(itertools.product((2, 4), (False, True), (False, True)))  # drivers, luigid, overlapping experiments
_ROW = "{:>3} {:>7} {:>7} {:>11} {:>5} {:>10} {:>11} {:>8} {:>10} {:>8} {:>7}"


def main() -> int:
    """Print a line per run and the sums; the exit code is 1 if anything was computed needlessly or wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--slurm", action="store_true", help="on slurm/dev_cluster, which is started for it")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="train and prune; else the jobs of tests/light_jobs.py")
    options = parser.parse_args()
    titles = ["run", "drivers", "luigid", "experiments", "tasks", "executions", "after death"]
    print(_ROW.format(*titles, "needless", "exit codes", "arrays", "seconds"), flush=True)
    with _cluster() if options.slurm else nullcontext({}) as more:
        return _runs(options, more)


_SLURM = "device=cpu\n[slurm]\ntimeout_min=10\npoll_seconds=2\npoll_seconds_max=4\ngather_seconds=1\n"


@contextmanager
def _cluster() -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="several_drivers_cluster_"))
    cluster = Cluster(folder / "c")
    assert dev_cluster("up", cluster.folder).returncode == 0
    os.environ["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
    try:
        yield {"backend": "slurm", "config": _SLURM}
    finally:
        dev_cluster("down", cluster.folder, "--delete")
        shutil.rmtree(folder, ignore_errors=True)


def _runs(options: argparse.Namespace, more: dict[str, str]) -> int:
    expected: dict[str, str] = {}
    sums = [0, 0, 0, 0]
    right = True
    for number in range(options.first, options.first + options.runs):
        drivers, with_luigid, overlapping = _SETUPS[number % len(_SETUPS)]
        folder = Path(tempfile.mkdtemp(prefix="several_drivers_"))
        began = time.monotonic()
        run = disturbed_run(folder, drivers, overlapping, with_luigid, options.seed + number, not options.real, **more)
        ended = run.wait()
        codes = sorted({code for code, _ in ended})
        starts = run.executions()
        executions = sum(map(len, starts.values()))
        needless = run.needless()
        found = contents(run.results)
        equal = all(expected.setdefault(name, content) == content for name, content in found.items())
        again = executions - len(starts) - len(needless)
        counts = (len(starts), executions, again, len(needless))
        shape = (number + 1, drivers, "killed" if with_luigid else "none", "two" if overlapping else "one")
        seconds = f"{time.monotonic() - began:.0f}"
        print(_ROW.format(*shape, *counts, str(codes), "equal" if equal else "DIFFER", seconds), flush=True)
        right &= equal and codes == [0] and not needless and not _claims(run)
        sums = [total + count for total, count in zip(sums, counts, strict=True)]
        for line in (*needless, *map(str, _claims(run)), *(out for code, out in ended if code)):
            print(f"    {line}")
        if right:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{sums[0]} tasks, {sums[1]} executions: {sums[2]} after the death of a driver, {sums[3]} needless")
    return 0 if right else 1


def _claims(run: Drivers) -> list[Path]:
    """Return the claims to missing results; those to existing ones may be of drivers that were killed at the end."""
    claims = sorted(run.results.rglob(".*.claim-*"))
    return [path for path in claims if not path.with_name(path.name[1:].partition(".claim-")[0]).exists()]


if __name__ == "__main__":
    sys.exit(main())
