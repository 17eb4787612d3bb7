"""The examples of docs/extending.md on a real SLURM: jobs see modules that lie beside the experiment file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.experiments import command, contents
from tests.extending.examples import lay_down
from tests.slurm.cluster import Cluster
from tests.slurm.test_experiments import QUICK


@pytest.fixture(autouse=True)
def _in_the_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])


def test_slurm_jobs_compute_what_one_process_computes(tmp_path: Path) -> None:
    found = {}
    for backend, config in (("inline", "device=cpu\n"), ("slurm", QUICK)):
        (tmp_path / backend).mkdir()
        file = lay_down(tmp_path / backend)
        file.write_text(re.sub(r"methods: .*", 'methods: ["taylor:TAYLOR_NET"]', file.read_text()))
        process = command(file, backend=backend, config=config)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        found[backend] = contents(tmp_path / backend / "results")
    assert len(found["slurm"]) == 7
    assert found["slurm"] == found["inline"]
