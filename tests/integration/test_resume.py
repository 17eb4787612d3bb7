"""Whole runs of a tiny experiment: nothing is computed twice, nothing that is lost stays lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from luigi_prune.__main__ import main
from luigi_prune.commands.plan import to_run
from luigi_prune.results.hdf5_file import read_result
from tests.experiments import contents, reports, run, write_experiment

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return the folder of a finished tiny experiment (two ratios of ThresNet)."""
    folder = tmp_path_factory.mktemp("finished")
    run(write_experiment(folder), pictures=True)
    return folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """Return a copy of the finished experiment that a test may change."""
    shutil.copytree(finished / "results", tmp_path / "results")
    return tmp_path


def stages(titles: list[str]) -> list[str]:
    return sorted(title.split(" ")[0] for title in titles)


def test_a_run_ends_in_a_report(finished):
    (report,) = reports(write_experiment(finished))
    assert report.complete()
    assert "<html" in report.path.read_text()[:500].lower()
    assert {"report.md", "plots", "data"} <= {path.name for path in report.path.parent.iterdir()}


def test_a_ratio_that_cannot_be_met_is_one_line_of_the_log(tmp_path, caplog):
    spacing = [{"type": "manual", "values": [0.001]}]
    run(write_experiment(tmp_path, experiments__methods=["FilterThresNet"], experiments__spacing=spacing))
    lines = [record.getMessage() for record in caplog.records if "cannot be met" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("lenet300_100: FilterThresNet: keep ratio 0.001 cannot be met on this network; the")


def test_ignored_layers_of_a_file_are_left_alone(tmp_path):
    settings = {"methods": ["SiPPNet"], "mode": "retrain", "ignoreLayers": ["fc1"]}
    settings["spacing"] = [{"type": "manual", "values": [0.9]}]
    run(write_experiment(tmp_path, **{f"experiments__{key}": value for key, value in settings.items()}))
    (base,) = (
        read_result(path) for path in (tmp_path / "results").rglob("TrainBase/*.h5") if "scores" not in path.name
    )
    (pruned,) = (read_result(path) for path in (tmp_path / "results").rglob("*prune-*.h5"))
    for name in ("weights/fc1.weight", "weights/fc1.bias"):
        assert (pruned.arrays[name] == base.arrays[name]).all()
    untouched = dict(
        zip(pruned.arrays["layers/name"], pruned.arrays["layers/kept"] == pruned.arrays["layers/total"], strict=True)
    )
    assert untouched == {"fc1": True, "fc2": False, "fc3": False}
    assert pruned.arrays["size"] / pruned.arrays["original_size"] == pytest.approx(0.9, rel=0.005)


def test_the_precision_of_a_training_is_shown(finished, capsys):
    for path in (finished / "results").rglob("*.h5"):
        if path.parent.name == "TrainBase" or "retrain-" in path.name:
            assert main(["show", str(path), "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["provenance"]["precision"] == "float32"


def test_again_computes_nothing(finished):
    assert run(write_experiment(finished)) == []


def test_a_new_method_runs_its_own_tasks_alone(copy):
    titles = run(write_experiment(copy, experiments__methods=["ThresNet", "FilterThresNet"]))
    assert stages(titles) == ["Aggregate", "Evaluate", "Evaluate", "Prune", "Prune", "Report", "Retrain", "Retrain"]
    assert all("FilterThresNet" in title for title in titles[:-2])


def test_a_new_colour_draws_the_report_alone(copy):
    assert stages(run(write_experiment(copy, network_colors={"ThresNet": "blue"}))) == ["Report"]


def test_a_new_ratio_at_the_end_of_a_cascade_runs_the_new_step_alone(copy):
    titles = run(write_experiment(copy, experiments__spacing=[{"type": "manual", "values": [0.5, 0.2, 0.1]}]))
    assert stages(titles) == ["Aggregate", "Evaluate", "Prune", "Report", "Retrain"]
    assert all("keep 0.1" in title for title in titles[:-2])


def test_a_finished_report_needs_nothing_below_it(copy, capsys):
    file = write_experiment(copy)
    gone = next((copy / "results").rglob("keep0.5-retrain-*.h5"))
    gone.unlink()
    assert run(file) == []
    assert main(["verify", str(file)]) == 1
    assert f"missing  {gone}" in capsys.readouterr().out.replace("\n", "")
    assert main(["verify", str(copy / "results")]) == 1
    assert gone.name in capsys.readouterr().out


def test_a_deleted_intermediate_is_computed_again_when_something_asks_for_it(copy):
    before = contents(copy / "results")
    gone = next((copy / "results").rglob("keep0.2-retrain-*.h5"))
    gone.unlink()
    titles = run(write_experiment(copy, experiments__spacing=[{"type": "manual", "values": [0.5, 0.2, 0.1]}]))
    assert stages(titles) == ["Aggregate", "Evaluate", "Prune", "Report", "Retrain", "Retrain"]
    after = contents(copy / "results")
    assert all(after[name] == before[name] for name in before)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_network_is_set_aside_and_computed_again_in_the_same_run(copy, how):
    before = contents(copy / "results")
    base = next((copy / "results").rglob("TrainBase/*.h5"))
    whole = base.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    base.write_bytes(flipped if how == "flipped" else whole[:middle])
    file = write_experiment(copy, experiments__methods=["ThresNet", "FilterThresNet"])
    assert "damaged" in {reason.split(" ")[0] for _, reason in to_run(reports(file))}
    titles = run(file)
    expected = ["Aggregate", *["Evaluate", "Prune", "Retrain"] * 2, "Report", "TrainBase"]
    assert (
        sorted(set(titles)) == sorted(titles) or titles.count(titles[0]) == 2
    )  # the reader starts twice, nothing else
    assert stages(list(dict.fromkeys(titles))) == sorted(expected)
    after = contents(copy / "results")
    assert all(after[name] == before[name] for name in before)
    assert len(list(base.parent.glob("*.corrupt.*"))) == 1


def test_verify_finds_damage_and_sets_it_aside(copy, capsys):
    base = next((copy / "results").rglob("TrainBase/*.h5"))
    base.write_bytes(base.read_bytes()[:-1])
    assert main(["verify", str(copy / "results")]) == 1
    assert "1 damaged" in capsys.readouterr().out
    assert base.exists()
    assert main(["verify", str(copy / "results"), "--set-aside"]) == 1
    assert not base.exists()
    assert len(list(base.parent.glob("*.corrupt.*"))) == 1


def test_another_experiment_with_the_same_network_trains_nothing(copy):
    titles = run(write_experiment(copy, "other", experiments__mode="retrain"))
    # 0.5 is a step from the trained network in both modes; 0.2 is so in one-shot mode alone
    assert stages(titles) == ["Aggregate", "Evaluate", "Prune", "Report", "Retrain"]


def test_two_runs_give_the_same_arrays(finished, tmp_path):
    run(write_experiment(tmp_path))
    assert contents(tmp_path / "results") == contents(finished / "results")
