"""`logs`, `status` and `cancel` beside a driver, and after one that was killed, on a real SLURM."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from luigi_prune.execution import claims
from tests.experiments import command, write_experiment
from tests.slurm.cluster import Cluster
from tests.slurm.recording_listener import until

QUICK = "device=cpu\n[slurm]\npoll_seconds=1\npoll_seconds_max=2\ntimeout_min=10\n"


@pytest.fixture
def driver(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """Return a run whose two trainings never end."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.chdir(tmp_path)
    file = write_experiment(tmp_path, experiments__numNets=2)
    (tmp_path / "pace").write_text("0.1")
    (tmp_path / "epochs").write_text("20000")
    process = command(file, "--workers", "8", backend="slurm", config=QUICK, light=True)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def say(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "luigi_prune", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def trains(net: int) -> bool:
    logs = Path("results/logs").glob(f"TrainBase-*-net{net}-*.log")
    return any("epoch 3/" in log.read_text() for log in logs)


def test_cancel_ends_jobs_that_outlived_their_driver(driver: subprocess.Popen[str], cluster: Cluster):
    until(lambda: trains(0) and trains(1))
    os.killpg(driver.pid, signal.SIGKILL)
    other = cluster.sbatch(wrap="sleep 600")
    status = say("status", "tiny.yaml", "--once")
    found = re.findall(
        r"TrainBase Digits lenet300_100 net\d: SLURM job (\d+_\d) on \S+: +\d+% +epoch \d+/20000", status
    )
    assert len(found) == 2, status
    assert "epoch 1/20000" in say("logs", found[0], "--results", "results")
    assert "epoch 1/20000" in say("logs", "TrainBase", "Digits", "lenet300_100", "net1", "--results", "results")
    said = say("cancel", "tiny.yaml", "--yes")
    assert "2 SLURM jobs cancelled, 2 claims removed." in said
    assert "driver" not in said
    until(lambda: set(cluster.squeue()) == {other})
    assert {state for _, state in cluster.sacct(*found)} == {"CANCELLED"}
    assert not any(claims.claimed(folder) for folder in Path("results").rglob("TrainBase"))
    assert len(list(Path("results").rglob("TrainBase/.*.checkpoint"))) == 2  # they saved before they ended


def test_a_driver_hears_of_it_and_ends(driver: subprocess.Popen[str], cluster: Cluster):
    until(lambda: trains(0) and trains(1))
    assert f"process {driver.pid}" in say("cancel", "--results", "results", "--yes")
    said, _ = driver.communicate(timeout=120)
    assert "the SLURM job was cancelled" in said, said
    assert "0 of 18 tasks done, 2 failed" in said
    assert cluster.squeue() == {}
