"""Scores of a trained network are computed once for all ratios of one-shot mode, and kept like any other result."""

from __future__ import annotations

from pathlib import Path

import pytest

from luigi_prune.results.hdf5_file import read_result
from tests.experiments import contents, run, write_experiment

pytestmark = pytest.mark.slow

CHANGES = {
    "experiments__mode": "retrain",
    "experiments__methods": ["PFPNet", "PFPNetRand"],
    "retraining": {"startEpoch": 2},
}


def scores(folder: Path) -> list[Path]:
    return sorted((folder / "results").rglob("TrainBase/scores/*.h5"))


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Note every computation of a score."""
    from luigi_prune.compute.pruning.scores import SCORES

    calls: list[str] = []

    def noted(name, function):
        def score(problem):
            calls.append(name)
            return function(problem)

        return score

    for name, function in list(SCORES.items()):
        monkeypatch.setitem(SCORES, name, noted(name, function))
    return calls


def test_one_computation_serves_all_ratios_and_methods_with_that_score(tmp_path, computed):
    run(write_experiment(tmp_path, **CHANGES))
    assert len(computed) == 1  # two methods at two ratios
    (path,) = scores(tmp_path)
    assert read_result(path).family == "Scores"
    run(write_experiment(tmp_path, **CHANGES, experiments__spacing=[{"type": "manual", "values": [0.5, 0.3, 0.2]}]))
    assert len(computed) == 1


def test_kept_scores_change_no_result_and_damaged_ones_are_computed_again(tmp_path, computed):
    run(write_experiment(tmp_path, **CHANGES))
    before = contents(tmp_path / "results")
    (path,) = scores(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    for result in (tmp_path / "results").rglob("keep0.2-*.h5"):
        result.unlink()
    run(write_experiment(tmp_path, **CHANGES, experiments__spacing=[{"type": "manual", "values": [0.5, 0.2, 0.1]}]))
    after = contents(tmp_path / "results")
    assert len(computed) == 2
    assert {name: after[name] for name in before} == before
    assert len(list(path.parent.glob("*.corrupt.*"))) == 1


def test_cascades_and_cheap_scores_keep_nothing(tmp_path):
    run(write_experiment(tmp_path, experiments__methods=["ThresNet"]))
    assert scores(tmp_path) == []
