"""Whole runs whose trainings share jobs: the same results as one by one, and provenance that tells the difference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import luigi.configuration
import pytest

from luigi_prune.results.hdf5_file import read_result
from tests.experiments import build, command, contents, reports, write_experiment, write_paced

MANY = {
    "experiments__numNets": 2,
    "experiments__methods": ["ThresNet", "UniNet"],
    "experiments__spacing": [{"type": "manual", "values": [0.5]}],
}


def together(folder: Path, family: str) -> Counter[int]:
    """Return how many results of a family were computed in the company of how many."""
    found = [read_result(path) for path in (folder / "results").rglob("*.h5")]
    return Counter(result.provenance.get("together", {}).get("count", 1) for result in found if result.family == family)


@pytest.mark.slow
def test_trainings_that_share_a_job_give_the_results_that_they_give_alone(tmp_path, monkeypatch):
    config = luigi.configuration.get_config()
    for name, most in (("alone", "1"), ("together", "4")):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        config.set("compute", "together", most)
        try:
            build([report.tables for report in reports(write_paced(tmp_path / name, **MANY))])
        finally:
            config.set("compute", "together", "1")
    assert contents(tmp_path / "together" / "results") == contents(tmp_path / "alone" / "results")
    assert together(tmp_path / "alone", "Retrain") == {1: 4}
    assert together(tmp_path / "together", "TrainBase") == {2: 2}
    assert together(tmp_path / "together", "Retrain") == {4: 4}


def test_a_run_keeps_jobs_for_a_free_slot_and_starts_the_equal_ones_together(tmp_path):
    process = command(
        write_experiment(tmp_path, **MANY),
        backend="local",
        config="jobs=1\ntogether=4\n[compute.TrainBase]\ntogether=1\n",
        light=True,
    )
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert "backend local, 1 at once, each with up to 4 trainings" in out
    found = [read_result(path) for path in (tmp_path / "results").rglob("*.h5")]
    sizes = {
        family: [len(r.provenance["together"]) for r in found if r.family == family]
        for family in ("TrainBase", "Prune", "Retrain")
    }
    assert sizes["TrainBase"] == [0, 0]
    assert set(sizes["Prune"]) == {0}
    assert sorted(sizes["Retrain"]) in ([0, 3, 3, 3], [4, 4, 4, 4])  # the last one becomes ready as the slot does
    assert len({r.provenance["job"] for r in found if r.family == "Retrain"}) <= 2
    assert "shares a process, whose output is in" in "".join(
        log.read_text() for log in (tmp_path / "results" / "logs").glob("*.log")
    )
