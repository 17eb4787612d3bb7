"""Every mode goes all the way, and does what its name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from luigi_prune.results.hdf5_file import Result, read_result
from tests.experiments import reports, run, write_experiment

pytestmark = pytest.mark.slow


def results(folder: Path, pattern: str) -> list[Result]:
    return [read_result(path) for path in sorted((folder / "results").rglob(pattern))]


def stages(titles: list[str]) -> dict[str, int]:
    families = [title.split(" ")[0] for title in titles]
    return {family: families.count(family) for family in dict.fromkeys(families)}


def test_train(tmp_path):
    file = write_experiment(tmp_path, experiments__mode="train", experiments__numNets=2)
    assert stages(run(file)) == {"TrainBase": 2, "Evaluate": 2, "Aggregate": 1, "Report": 1}
    assert reports(file)[0].complete()


@pytest.mark.parametrize("rules", ["paper", "reference"])
def test_retrain_with_steps_that_only_prune(tmp_path, rules):
    spacing = [{"type": "manual", "values": [0.8, 0.5, 0.2]}]
    file = write_experiment(
        tmp_path,
        experiments__mode="retrain",
        experiments__rules=rules,
        experiments__spacing=spacing,
        experiments__retrainIterations=2,
    )
    # 0.8 -> 0.5 is retrained; 0.8 -> 0.2 as well: the first step is one task
    ran = stages(run(file))
    assert ran == {"TrainBase": 1, "Prune": 3, "Evaluate": 3, "Retrain": 2, "Aggregate": 1, "Report": 1}
    (tables,) = results(tmp_path, "results.h5")
    counted = zip(tables.measured["family/name"].tolist(), tables.measured["family/tasks"].tolist(), strict=True)
    assert dict(counted) == {family: ran[family] for family in ("TrainBase", "Prune", "Retrain", "Evaluate")}
    assert (tables.measured["family/seconds"] > 0).all()
    np.testing.assert_array_equal(tables.measured["family/gpu_tasks"], tables.measured["family/tasks"])
    assert "Cost per family of tasks" in (reports(file)[0].path.parent / "report.md").read_text()
    (pruned,) = results(tmp_path, "keep0.2-prune-*.h5")
    achieved = int(pruned.arrays["size"]) / int(pruned.arrays["original_size"])
    assert achieved == pytest.approx(0.2, rel=0.005 if rules == "paper" else 0.05)


def test_cascade_rewind_starts_each_retraining_from_the_early_weights(tmp_path):
    file = write_experiment(tmp_path, experiments__mode="cascade-rewind", retraining={"startEpoch": 1, "numEpochs": 1})
    run(file)
    (base,) = results(tmp_path, "TrainBase/net0-*.h5")
    for retrained in results(tmp_path, "keep*-retrain-*.h5"):  # no epoch is trained: the rewound weights themselves
        masks = retrained.group("masks")
        for name, weight in retrained.group("weights").items():
            early = base.group("rewind")[name]
            kept = masks.get(name, np.ones(early.shape, dtype=bool))
            np.testing.assert_array_equal(weight, np.where(kept, early, 0))


def test_removed_weights_stay_removed_down_a_cascade(tmp_path):
    run(write_experiment(tmp_path, experiments__methods=["ThresNet", "FilterThresNet", "UniNet", "FilterUniNet"]))
    for method in ("ThresNet", "FilterThresNet", "UniNet", "FilterUniNet"):
        (first,), (second,) = (
            results(tmp_path, f"{method}/net0-rep0/keep{ratio}-retrain-*.h5") for ratio in ("0.5", "0.2")
        )
        for name, weight in first.group("weights").items():
            later = second.group("weights")[name]
            mask = first.group("masks").get(name)
            if mask is not None:
                assert not weight[~mask].any()
                assert not later[~mask].any()


def test_a_low_rank_cascade_ends_in_a_report(tmp_path):
    file = write_experiment(tmp_path, experiments__methods=["ALDSNet", "ALDSNetOne", "PCANet"])
    counts = stages(run(file))
    assert counts["Retrain"] == 6
    assert reports(file)[0].complete()
    (pruned,) = results(tmp_path, "ALDSNet/net0-rep0/keep0.2-prune-*.h5")
    assert pruned.meta["structure"]
    estimate, truth = (pruned.arrays[f"layers/error_{name}"] for name in ("estimate", "operator"))
    replaced = [name in {entry["layer"] for entry in pruned.meta["structure"]} for name in pruned.arrays["layers/name"]]
    assert ((truth > 0) == replaced).all()
    assert (estimate <= truth * (1 + 1e-6)).all()
    (unknown,) = results(tmp_path, "PCANet/net0-rep0/keep0.2-prune-*.h5")
    assert np.isnan(unknown.arrays["layers/error_operator"]).any()
