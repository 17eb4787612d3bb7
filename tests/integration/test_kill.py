"""kill -9 at any moment, then run again: the arrays are those of a run that was left alone.

Runs in one process train; jobs of the local backend do not (tests/light_jobs.py) unless a checkpoint is at stake.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.experiments import command, contents, write_experiment, write_paced

KILLS = int(os.environ.get("LUIGI_PRUNE_KILLS", "2"))  # the acceptance run has 20
CHANGES = {
    "training__numEpochs": 6,
    "retraining": {"startEpoch": 3},
    "experiments__methods": ["ThresNet", "UniNet"],
}


def finish(file: Path, backend: str, light: bool = False) -> tuple[float, str]:
    """Run to the end and return the seconds it took and what it printed."""
    began = time.monotonic()
    process = command(file, backend=backend, light=light, pictures=not light)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    return time.monotonic() - began, out


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["inline", "local"])
def test_killed_at_random_moments_and_resumed_gives_the_same_arrays(tmp_path, backend):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    light = backend == "local"
    seconds, _ = finish(write_experiment(undisturbed, **CHANGES), backend, light)
    expected = contents(undisturbed / "results")
    file = write_experiment(disturbed, **CHANGES)
    moments = random.Random(KILLS)
    kills = 0
    while kills < KILLS:
        process = command(file, backend=backend, light=light, pictures=not light)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # any moment of a run's life, from its first imports on
            process.wait(timeout=moments.uniform(0.3, 0.8 * seconds))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
            process.communicate()
        else:  # it got to the end before it could be killed: begin anew
            assert process.communicate()[0].count("Report:") == 1
            assert contents(disturbed / "results") == expected
            shutil.rmtree(disturbed / "results")
    finish(file, backend, light)
    assert contents(disturbed / "results") == expected


@pytest.mark.slow
def test_killed_while_training_it_goes_on_from_its_checkpoint(tmp_path):
    """A training that had a checkpoint does not begin anew: its log says where it goes on."""
    file = write_paced(tmp_path, pace=0.05, training__numEpochs=60, experiments__mode="train")
    process = command(file, backend="local")
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob(".*.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (checkpoint,) = tmp_path.rglob(".*.checkpoint")
    finish(file, "local")
    assert not checkpoint.exists()
    (log,) = (tmp_path / "results" / "logs").glob("TrainBase*.log")
    epochs = [
        int(line.split("epoch ")[1].split("/")[0])
        for line in log.read_text().splitlines()
        if "epoch " in line and "/60" in line
    ]
    assert epochs[-1] == 60
    assert epochs.count(1) == 1
    assert len(epochs) < 2 * 60


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["inline", "local"])
def test_interrupted_it_stops_its_jobs_and_says_so_without_a_traceback(tmp_path, backend):
    file = write_experiment(tmp_path, training__numEpochs=2000, experiments__mode="train", training__batchSize=16)
    (tmp_path / "pace").write_text("0.1")
    (tmp_path / "epochs").write_text("2000")
    process = command(file, backend=backend, light=backend == "local")
    deadline = time.monotonic() + 120
    begun = "events.out.*" if backend == "inline" else ".*.checkpoint"
    while not list(tmp_path.rglob(begun)) and time.monotonic() < deadline:
        time.sleep(0.05)  # until an epoch has been logged
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in out
    assert "Traceback" not in out
