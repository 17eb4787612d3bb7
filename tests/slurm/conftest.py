"""One development cluster for all tests of a process; without SLURM they are skipped, or fail where it must be."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, dev_cluster

SHORT = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # sockets want short paths, databases fast disks


@pytest.fixture(scope="session")
def slurm_is_installed() -> None:
    """Skip without SLURM; fail in CI, or where LUIGI_PRUNE_REQUIRE_SLURM=1."""
    if shutil.which("sbatch"):
        return
    if os.environ.get("CI") or os.environ.get("LUIGI_PRUNE_REQUIRE_SLURM") == "1":
        pytest.fail("SLURM is not installed, and must be: slurm/README.md")
    pytest.skip("SLURM is not installed: slurm/README.md")


def end_orphans() -> None:
    """End the clusters of test processes that were killed."""
    for folder in Path(tempfile.gettempdir() if SHORT is None else SHORT).glob("lps-[0-9]*-*"):
        if not Path(f"/proc/{folder.name.split('-')[1]}").exists():
            dev_cluster("down", "--delete", folder)


@pytest.fixture(scope="session")
def start_cluster(slurm_is_installed: None) -> Iterator[Callable[..., Cluster]]:
    """Return a function that starts a cluster with options of `dev_cluster up`; all of them end with the session."""
    end_orphans()
    folders = []

    def start(*options: object) -> Cluster:
        folders.append(Path(tempfile.mkdtemp(prefix=f"lps-{os.getpid()}-", dir=SHORT)))
        done = dev_cluster("up", folders[-1], *options)
        assert done.returncode == 0, done.stderr
        return Cluster(folders[-1])

    yield start
    for folder in folders:
        if (folder / "etc").exists():
            done = dev_cluster("down", folder)
            assert done.returncode == 0, done.stderr
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_cluster(start_cluster: Callable[..., Cluster]) -> Cluster:
    """Return the cluster that tests share; they ask for `cluster`."""
    return start_cluster()


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """Return a cluster of four nodes in order, with an empty queue, whatever the test before did to it."""
    yield shared_cluster
    shared_cluster.settle()
