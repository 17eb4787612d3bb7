"""Every task counts once, whatever depends on it; unknown costs do not count as zero."""

from __future__ import annotations

import numpy as np
import pytest

from luigi_prune.analysis.costs import Measured, family_costs, total_seconds
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


@pytest.mark.parametrize(
    ("mode", "steps"), [("retrain", [12, 24, 36]), ("cascade", [12, 36, 72]), ("cascade-rewind", [12, 36, 72])]
)
def test_all_steps_that_lead_to_a_network_count(mode: str, steps: list[float]) -> None:
    shape = (2, 3, 1, 2)  # nets, ratios, repetitions, the reference and a method
    measured = {f"{name}_seconds": np.full(shape, np.nan) for name in ("trainbase", "prune", "retrain")}
    measured["trainbase_seconds"][..., 0] = np.asarray([100, 200])[:, None, None]
    measured["prune_seconds"][..., 1] = np.asarray([2, 4, 6])[:, None]
    measured["retrain_seconds"][..., 1] = np.asarray([10, 20, 30])[:, None]
    behind = total_seconds(measured, mode)
    assert behind is not None
    for net, training in enumerate((100, 200)):
        assert behind.total[net, :, 0, 1].tolist() == [training + step for step in steps]
    assert np.isnan(behind.total[..., 0]).all()
    measured["retrain_seconds"][0, 1] = np.nan  # lost: what stands on it is unknown, too
    behind = total_seconds(measured, mode)
    assert behind is not None
    assert np.isfinite(behind.total[0, :, 0, 1]).tolist() == [True, False, mode == "retrain"]
    assert total_seconds({"prune_seconds": measured["prune_seconds"]}, mode) is None
