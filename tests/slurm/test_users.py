"""Two users and one results folder, on a real SLURM: one waits for the other's jobs, and neither harms them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import SHORT
from tests.slurm.recording_listener import REPOSITORY, maker, submit, until
from tests.slurm.test_jobs import make_backend

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

limits = Resources(timeout_min=10, signal_delay_s=15, python=sys.executable)
backend = SlurmBackend(ComputeSettings(backend="slurm", device="cpu", own=site(limits)))
folder, action, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
job = maker(folder)("count", steps=steps, until=str(folder / "over"))
try:
    backend.prepare([job])
    listener = submit(backend, job)
    if action in ("cancel", "adopt"):
        listener.message_with("step")
    if action == "cancel":
        backend.cancel(job)
        print(listener.outcome().message)
    else:
        (folder / "over").touch()
        print(listener.result()["starts"], dict(backend.client.calls).get("sbatch", 0))
except ConfigError as error:
    print(error)
backend.close()
"""


def run_as_other(code: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script as the other user."""
    variables = {name: os.environ[name] for name in ("PATH", "SLURM_CONF") if name in os.environ}
    python_path = os.pathsep.join([str(REPOSITORY), sysconfig.get_path("purelib")])
    return subprocess.run(
        ["runuser", "-u", OTHER, "--", "sh", "-c", code],
        cwd=REPOSITORY,
        env={**variables, "HOME": "/tmp", "PYTHONPATH": python_path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=150,
    )


@pytest.fixture(scope="session")
def python(slurm_is_installed: None) -> str:
    """Return an interpreter that the other user may run, with this package."""
    if os.geteuid() != 0 or shutil.which("runuser") is None:
        pytest.skip("only root can act as another user")
    for candidate in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        if run_as_other(f"exec {candidate} -c 'import luigi_prune.execution.slurm.slurm_backend'").returncode == 0:
            return candidate
    pytest.skip(f"{OTHER} cannot run Python with this package")


@pytest.fixture
def shared() -> Iterator[Path]:
    """Return a folder below which both users may write."""
    umask = os.umask(0)
    folder = Path(tempfile.mkdtemp(prefix="lp-shared-", dir=SHORT))
    folder.chmod(0o777)
    yield folder
    os.umask(umask)
    shutil.rmtree(folder)


@pytest.fixture
def other_user(python: str, shared: Path, cluster: Cluster) -> Callable[[str, int], str]:
    """Return a function that runs a driver of the other user and returns what it prints."""
    cluster.folder.chmod(0o755)

    def run(action: str, steps: int) -> str:
        done = run_as_other(f"umask 0; exec {python} -c '{DRIVER}' {shared} {shlex.quote(action)} {steps}")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_a_second_user_waits_for_the_first_ones_job_and_cannot_cancel_it(
    make_backend, other_user, cluster: Cluster, shared: Path
):
    backend = make_backend()
    listener = submit(backend, maker(shared)("count", steps=9000, until=str(shared / "over")))
    listener.runs()
    assert other_user("cancel", 9000) == "cancelled"  # it gives up waiting, no more
    assert cluster.squeue() == {listener.slurm_id: "RUNNING"}
    assert other_user("adopt", 9000) == "[0] 0"
    assert listener.result()["starts"] == [0]
    until(lambda: not list(shared.rglob("*claim*")))


def test_a_second_user_takes_over_from_a_first_one_whose_job_is_gone(
    make_backend, other_user, cluster: Cluster, shared: Path
):
    backend = make_backend()
    listener = submit(backend, maker(shared)("count", steps=3000))
    listener.runs(7)
    backend._detached = True
    backend.close()
    cluster.run("scancel", listener.slurm_id)
    until(lambda: not cluster.squeue())
    until(lambda: (shared / ".job.json.checkpoint").exists())
    starts, submissions = other_user("take over", 40).rsplit(" ", 1)
    assert submissions == "1"
    assert starts.startswith("[0, ")  # from the first one's checkpoint


def test_a_folder_that_only_its_owner_may_write_to_is_refused_in_one_line(
    make_backend, other_user, cluster: Cluster, shared: Path
):
    make_backend()
    (shared / "slurm").mkdir(mode=0o755)
    said = other_user("refused", 5)
    assert said.startswith(f"directories.results: cannot write to {shared / 'slurm'}, which belongs to root; ")
    assert "\n" not in said
    assert cluster.squeue() == {}
