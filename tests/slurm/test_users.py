"""Two users and one results folder, on a real SLURM: one waits for the other's jobs, and neither harms them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import SHORT
from tests.slurm.recording_listener import maker, submit, until
from tests.slurm.test_jobs import REPOSITORY, make_backend

__all__ = ["make_backend"]

OTHER = "nobody"
DRIVER = """
import sys
from pathlib import Path
from luigi_prune.errors import ConfigError
from luigi_prune.execution.job import ComputeSettings
from luigi_prune.execution.slurm.options import Resources
from luigi_prune.execution.slurm.slurm_backend import SlurmBackend
from tests.slurm.recording_listener import maker, site, submit

limits = Resources(timeout_min=10, signal_delay_s=15)
backend = SlurmBackend(ComputeSettings(backend="slurm", device="cpu", own=site(limits)))
job = maker(Path(sys.argv[1]))("count", steps=int(sys.argv[3]))
try:
    backend.prepare([job])
    listener = submit(backend, job)
    if sys.argv[2] == "cancel":
        listener.message_with("step")
        backend.cancel(job)
        print(listener.outcome().message)
    else:
        print(listener.result()["starts"], dict(backend.client.calls).get("sbatch", 0))
except ConfigError as error:
    print(error)
backend.close()
"""


def is_possible() -> bool:
    try:
        pwd.getpwnam(OTHER)
    except KeyError:
        return False
    return os.geteuid() == 0 and shutil.which("runuser") is not None


pytestmark = pytest.mark.skipif(not is_possible(), reason="only root can act as another user")


@pytest.fixture
def shared() -> Iterator[Path]:
    """Return a folder below which both users may write."""
    umask = os.umask(0)
    folder = Path(tempfile.mkdtemp(prefix="lp-shared-", dir=SHORT))
    folder.chmod(0o777)
    yield folder
    os.umask(umask)
    shutil.rmtree(folder)


def other_user(folder: Path, action: str, steps: int) -> str:
    """Return what a driver of the other user prints."""
    code = f"umask 0; exec {sys.executable} -c '{DRIVER}' {folder} {action} {steps}"
    variables = {name: os.environ[name] for name in ("PATH", "SLURM_CONF")}
    done = subprocess.run(
        ["runuser", "-u", OTHER, "--", "sh", "-c", code],
        cwd=REPOSITORY,
        env={**variables, "HOME": "/tmp", "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_second_user_waits_for_the_first_ones_job_and_cannot_cancel_it(make_backend, cluster: Cluster, shared: Path):
    backend = make_backend()
    listener = submit(backend, maker(shared)("count", steps=150))
    listener.runs()
    assert other_user(shared, "cancel", 150) == "cancelled"  # it gives up waiting, no more
    assert cluster.squeue() == {listener.slurm_id: "RUNNING"}
    assert other_user(shared, "wait", 150) == "[0] 0"
    assert listener.result()["starts"] == [0]
    until(lambda: not list(shared.rglob("*claim*")))


def test_a_second_user_takes_over_from_a_first_one_whose_job_is_gone(make_backend, cluster: Cluster, shared: Path):
    backend = make_backend()
    listener = submit(backend, maker(shared)("count", steps=3000))
    listener.runs(7)
    backend._detached = True
    backend.close()
    cluster.run("scancel", listener.slurm_id)
    until(lambda: not cluster.squeue())
    until(lambda: (shared / ".job.json.checkpoint").exists())
    starts, submissions = other_user(shared, "wait", 40).rsplit(" ", 1)
    assert submissions == "1"
    assert starts.startswith("[0, ")  # from the first one's checkpoint


def test_a_folder_that_only_its_owner_may_write_to_is_refused_in_one_line(make_backend, cluster: Cluster, shared: Path):
    make_backend()
    (shared / "slurm").mkdir(mode=0o755)
    said = other_user(shared, "wait", 5)
    assert said.startswith(f"directories.results: cannot write to {shared / 'slurm'}, which belongs to root; ")
    assert "\n" not in said
    assert cluster.squeue() == {}
