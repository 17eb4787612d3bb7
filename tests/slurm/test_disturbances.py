"""One experiment, everything happens to its jobs at once, and the arrays are those of a run that nobody disturbed.

Jobs train nothing (tests/light_jobs.py): a step that is lost, or done twice, changes their result as well.
`pytest -s` prints what happened when, and what the run said.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.identity.paths import checkpoint_path
from tests.experiments import command, contents, write_experiment
from tests.slurm.cluster import Cluster, environments
from tests.slurm.recording_listener import follow, until

CHANGES: dict[str, Any] = {"experiments__methods": [], "experiments__numNets": 5}
CONFIG = "device=cpu\n[slurm]\npoll_seconds=1\npoll_seconds_max=2\ngrace_seconds=3\ntimeout_min=10\n"


@pytest.mark.slow
def test_whatever_happens_to_its_jobs_an_experiment_comes_to_the_same_arrays(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    (tmp_path / "calm").mkdir()
    (tmp_path / "disturbed").mkdir()
    calm = command(write_experiment(tmp_path / "calm", **CHANGES), light=True)
    said, _ = calm.communicate(timeout=300)
    assert calm.returncode == 0, said

    file = write_experiment(tmp_path / "disturbed", **CHANGES)
    (tmp_path / "disturbed" / "pace").write_text("0.6")  # all of them have a checkpoint long before one ends
    process = command(file, "--workers", "20", backend="slurm", config=CONFIG, light=True)
    lines = follow(process)
    trainings = _trainings(tmp_path / "disturbed", cluster)
    event = _clock()
    job, host = trainings[0]
    event(f"preempted: USR2 to {job}")
    cluster.run("scancel", "--signal=USR2", job)
    job, host = trainings[1]
    event(f"scontrol requeue {job}")
    cluster.run("scontrol", "requeue", job)
    job, host = trainings[2]
    event(f"kill -9 of the process of {job}")
    os.kill(_pid(cluster, job), signal.SIGKILL)
    job, host = trainings[3]
    event(f"crash of the node {host} of {job}, and the accounting stops")
    cluster.kill_node(host)
    cluster.stop_accounting()
    job, host = trainings[4]
    event(f"scancel {job}")
    cluster.run("scancel", job)
    event("the controller restarts")
    cluster.restart_controller()
    event("it has")
    assert process.wait(timeout=300) == 30  # one was cancelled, which no run undoes by itself
    event("the run ends")
    first = "".join(lines)
    assert "was cancelled" in first
    assert "1 failed" in first

    again = command(file, "--workers", "20", backend="slurm", config=CONFIG, light=True)
    said, _ = again.communicate(timeout=300)
    print(said)
    assert again.returncode == 0, said
    assert contents(tmp_path / "disturbed" / "results") == contents(tmp_path / "calm" / "results")
    logs = [log.read_text() for log in (tmp_path / "disturbed" / "results" / "logs").glob("TrainBase*.log")]
    starts = [log.count("process 1 of 1") for log in logs]
    assert len(starts) == 5
    assert min(starts) >= 2  # every one of them was interrupted
    epochs = [[int(epoch) for epoch in re.findall(r"INFO epoch (\d+)/40", log)] for log in logs]
    assert all(seen.count(1) == 1 for seen in epochs)  # and none began anew


def _trainings(folder: Path, cluster: Cluster) -> list[tuple[str, str]]:
    """Return (SLURM id, node) of each training, as soon as all of them have a checkpoint."""
    results = folder / "results"
    until(lambda: len(list(results.rglob(checkpoint_path("net*.h5").name))) == 5)
    rows = cluster.run("squeue", "-h", "-r", "-t", "R", "-o", "%i %N").stdout.split("\n")
    return [(row.split()[0], row.split()[1]) for row in sorted(rows) if row]


def _pid(cluster: Cluster, job: str) -> int:
    """Return the Python process of an array's element."""
    array, _, element = job.partition("_")
    for pid, variables in environments().items():
        own = (variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID"))
        if own == (array, element) and "SLURM_PROCID" in variables:
            command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"entrypoint" in command_line and b"srun" not in command_line.split(b"\0")[0]:
                return pid
    raise AssertionError(f"{job} has no process")


def _clock() -> Any:
    def event(what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} * {what}")

    return event
