"""`python -m luigi_prune report`: reports at any time, and a comparison of experiments."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from luigi_prune.__main__ import main
from luigi_prune.workflow.partial_reports import write_partial_reports
from luigi_prune.workflow.tasks import RunExperiment
from tests.blank_pictures import dots
from tests.experiments import build, reports, run_to_tables, write_experiment


def test_without_any_result_there_is_nothing_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_experiment(tmp_path)
    assert main(["report", str(file)]) == 35
    assert "error: no evaluation exists yet" in capsys.readouterr().err
    assert main(["report", str(file), str(tmp_path / "nowhere.yaml")]) == 35
    capsys.readouterr()
    assert main(["report", str(file), "--key", "0" * 64]) == 35
    assert f"{file} has changed and holds no such experiment any more" in capsys.readouterr().err


@pytest.mark.slow
def test_reports_of_what_exists_and_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = ["ThresNet", "UniNet"]
    whole = write_experiment(tmp_path, "whole", experiments__methods=methods)
    half = write_experiment(tmp_path, "half", experiments__methods=methods, retraining={"startEpoch": 2})
    none = write_experiment(tmp_path, "none", experiments__methods=methods, training__numEpochs=1)
    run_to_tables(whole)
    (task,) = reports(half)
    build([evaluation for cell, evaluation in task.tables.evaluations.items() if cell.split("/")[2] == "0"])
    damaged = next(task.tables.evaluations[cell].path for cell in task.tables.evaluations if cell.endswith("0/0/2"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    capsys.readouterr()

    out = tmp_path / "out"
    with dots():
        assert main(["report", str(whole), str(half), str(none), "--output", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-4] == f"whole: {reports(whole)[0].path}"
    assert printed[-3].startswith("half: PARTIAL, 3 of 5 results missing: ")  # the second ratio, and the damaged one
    assert printed[-2] == "none: no results yet (5 evaluations missing)"
    partial = Path(printed[-3].rpartition(": ")[2])
    assert "PARTIAL" in partial.read_text(encoding="utf-8")
    assert reports(whole)[0].complete()
    assert not task.complete()
    with (out / "comparison.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["experiment"] for row in rows} == {"whole", "half"}
    assert "retraining.startEpoch" in rows[0]
    assert "none (5 of 5 results missing)" in (out / "comparison.html").read_text(encoding="utf-8")
    with dots():
        assert main(["report", str(whole), str(half), "--test-set", "Digit"]) == 35
    assert "Digits" in capsys.readouterr().err

    notes: list[str] = []
    write_partial_reports([RunExperiment(config=str(file)) for file in (none, whole)], notes.append)
    assert notes == ["No partial report: error: no evaluation exists yet, so there is nothing to report"]
