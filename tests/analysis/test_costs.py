"""Every task counts once, whatever depends on it; unknown costs do not count as zero."""

from __future__ import annotations

import numpy as np

from luigi_prune.analysis.costs import Measured, family_costs
from luigi_prune.report.report_tables import family_table

# two nets; net 0 was pruned twice in a row, without an evaluation in between
FILES = {
    "base0": Measured("TrainBase", "b0", {"trainbase_seconds": 100, "trainbase_gpu_seconds": 400}, {}),
    "base1": Measured("TrainBase", "b1", {"trainbase_seconds": 50}, {}),  # of a version that counted no GPUs
    "prune0": Measured("Prune", "p0", {"prune_seconds": 1, "prune_gpu_seconds": 0, "prune_peak_bytes": 5e6}, {}),
    "prune1": Measured("Prune", "p1", {"prune_seconds": 2, "prune_gpu_seconds": 0, "prune_peak_bytes": 3e6}, {}),
    "train0": Measured("Evaluate", "e0", {"evaluate_seconds": 0.25, "trainbase_seconds": 100}, {"b0": "base0"}),
    "train1": Measured("Evaluate", "e1", {"evaluate_seconds": 0.25, "trainbase_seconds": 50}, {"b1": "base1"}),
    "noisy1": Measured("Evaluate", "n1", {"evaluate_seconds": 0.5, "trainbase_seconds": 50}, {"b1": "base1"}),
    "cell": Measured("Evaluate", "c", {"evaluate_seconds": 0.25, "prune_seconds": 2}, {"p1": "prune1"}),
}
FILES["prune0"] = FILES["prune0"]._replace(parents={"b0": "base0"})
FILES["prune1"] = FILES["prune1"]._replace(parents={"p0": "prune0", "b0": "base0"})
EVALUATED = ["train0", "train0", "train1", "noisy1", "cell"]


def by_family(costs: dict[str, np.ndarray], what: str) -> dict[str, float]:
    return dict(zip(costs["family/name"].tolist(), costs[f"family/{what}"].tolist(), strict=True))


def test_every_task_counts_once_however_many_evaluations_stand_on_it():
    costs = family_costs(EVALUATED, FILES.get)
    assert by_family(costs, "tasks") == {"TrainBase": 2, "Prune": 2, "Evaluate": 4}
    assert by_family(costs, "seconds") == {"TrainBase": 150, "Prune": 3, "Evaluate": 1.25}
    assert by_family(costs, "peak_bytes")["Prune"] == 5e6


def test_gpu_seconds_that_nobody_counted_are_unknown_and_not_nothing():
    costs = family_costs(EVALUATED, FILES.get)
    assert by_family(costs, "gpu_seconds") == {"TrainBase": 400, "Prune": 0, "Evaluate": 0}
    assert by_family(costs, "gpu_tasks") == {"TrainBase": 1, "Prune": 2, "Evaluate": 0}
    rows = {row[0]: row for row in family_table(costs).rows}
    assert rows["TrainBase"] == ("TrainBase", "2", "75.00", "150.0", "0.11 (1 of 2 tasks)", "–")
    assert rows["Prune"] == ("Prune", "2", "1.50", "3.0", "0.00", "5")
    assert rows["Evaluate"][4] == "unknown"


def test_what_a_result_carries_along_stands_for_a_lost_input():
    left = {name: result for name, result in FILES.items() if name not in ("base1", "prune1")}
    costs = family_costs(EVALUATED, left.get)
    assert by_family(costs, "seconds") == {"TrainBase": 150, "Prune": 2, "Evaluate": 1.25}
    assert by_family(costs, "tasks") == {"TrainBase": 2, "Prune": 1, "Evaluate": 4}


def test_lost_evaluations_are_no_error():
    costs = family_costs(["nowhere"], FILES.get)
    assert costs["family/name"].tolist() == []
