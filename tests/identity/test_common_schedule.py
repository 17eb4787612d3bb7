"""Which trainings can run together: by what specs have in common, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.identity.common_schedule import common_schedule
from luigi_prune.workflow.job_task import JobTask, walk
from tests.experiments import reports, write_experiment

ALIKE = {"experiments__methods": ["ThresNet", "SVDNet"], "experiments__numNets": 2, "experiments__numRepetitions": 2}


def requests(folder: Path, family: str, **changes: Any) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    tasks = walk(*reports(write_experiment(folder, **{"experiments__mode": "retrain", **changes})))
    return [task.request() for task in tasks if isinstance(task, JobTask) and task.task_family == family]


@pytest.mark.parametrize(("family", "count"), [("TrainBase", 2), ("Retrain", 16)])
def test_nets_methods_ratios_and_repetitions_share_a_schedule(tmp_path, family, count):
    found = requests(tmp_path, family, **ALIKE)
    assert len(found) == count
    assert len({common_schedule(request) for request in found}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"retraining__numEpochs": 3},
        {"retraining__startEpoch": 0},
        {"training__batchSize": 64},
        {"training__metricsTest": [{"type": "TopK", "kwargs": {"topk": 5}}]},
        {"network": {"name": "resnet8", "dataset": "Digits", "outputSize": 10}},
        {"network": {"name": "lenet300_100", "dataset": "MNIST", "outputSize": 10}},
        {"directories": {"results": "results", "trainingData": "elsewhere"}},
    ],
)
def test_another_network_training_or_data_is_another_schedule(tmp_path, changes):
    one, other = (requests(tmp_path / name, "Retrain", **more)[0] for name, more in (("a", {}), ("b", changes)))
    assert common_schedule(one) != common_schedule(other)


def test_the_results_folder_does_not_matter_and_other_families_train_alone(tmp_path):
    one, other = (requests(tmp_path / name, "Retrain")[0] for name in "ab")
    assert common_schedule(one) == common_schedule(other)
    (base,) = requests(tmp_path / "a", "TrainBase")
    assert common_schedule(base) not in ("", common_schedule(one))
    for family in ("Prune", "Evaluate", "Aggregate", "Report"):
        assert {common_schedule(request) for request in requests(tmp_path / "a", family)} == {""}
    assert json.loads(common_schedule(one))["family"] == "Retrain"
