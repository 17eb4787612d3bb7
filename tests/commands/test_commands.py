"""`python -m luigi_prune`: what each command says of a store, and that none of them starts anything."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from luigi_prune.__main__ import main
from luigi_prune.identity.paths import checkpoint_path
from tests.experiments import reports, run, write_experiment


@pytest.fixture
def store(tmp_path, backend) -> Path:
    """Return the folder of a finished experiment whose results hold nothing."""
    run(write_experiment(tmp_path))
    backend.submitted.clear()
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_plan_of_nothing_done(tmp_path, capsys, backend):
    assert main(["plan", str(write_experiment(tmp_path))]) == 0
    out = said(capsys)
    assert "10 tasks to do (1 TrainBase, 2 Prune, 2 Retrain, 3 Evaluate, 1 Aggregate, 1 Report)" in out
    assert "because: 10 missing" in out
    assert backend.submitted == []
    assert not (tmp_path / "results").exists()


def test_a_reports_path_builds_the_grid_once(tmp_path, monkeypatch):
    from luigi_prune.identity import keys

    built = []
    monkeypatch.setattr(keys, "evaluations", lambda experiment: built.append(experiment) or {})
    (report,) = reports(write_experiment(tmp_path))
    assert len({report.path for _ in range(3)}) == 1
    report.requires()
    report.complete()
    assert len(built) == 1


def test_plan_of_everything_done(store, capsys):
    assert main(["plan", str(store / "tiny.yaml")]) == 0
    assert "Nothing to compute" in said(capsys)


def test_plan_names_what_is_missing_damaged_and_of_another_version(store, capsys, monkeypatch):
    base = next((store / "results").rglob("TrainBase/*.h5"))
    base.write_bytes(base.read_bytes()[:-1])
    file = write_experiment(store, experiments__methods=["ThresNet", "UniNet"])
    assert main(["plan", str(file)]) == 0
    out = said(capsys)
    assert "damaged" in out
    assert "1 TrainBase" in out
    assert "2 Prune" in out


def test_a_result_of_another_algorithm_version_is_named_as_the_reason(store, capsys, monkeypatch):
    from luigi_prune.identity import keys

    monkeypatch.setitem(keys.ALGORITHM_VERSION, "Evaluate", 99)
    assert main(["plan", str(store / "tiny.yaml")]) == 0
    out = said(capsys)
    assert "5 tasks to do (3 Evaluate, 1 Aggregate, 1 Report)" in out
    assert "because: 3 version, 2 missing" in out


def test_status_counts_what_is_there(store, capsys):
    gone = next((store / "results").rglob("keep0.2-retrain-*.h5"))
    gone.unlink()
    checkpoint_path(gone).touch()
    assert main(["status", str(store / "tiny.yaml"), "--once"]) == 0
    out = said(capsys)
    assert "Retrain ThresNet 1 2" in out
    assert "in training: Retrain lenet300_100 ThresNet keep 0.2" in out
    assert "report:" in out


def test_show_says_what_a_result_holds(store, capsys):
    base = next((store / "results").rglob("TrainBase/*.h5"))
    assert main(["show", str(base), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["family"] == "TrainBase"
    assert about["contents"]["a"] == "float64 [3]"
    assert main(["show", str(base)]) == 0
    assert "float64 [3]" in said(capsys)


def test_show_of_an_experiment_file_names_the_command_for_it(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("network: {}")
    assert main(["show", str(tmp_path / "mine.yaml")]) == 35
    assert "is no result file (.h5); `python -m luigi_prune plan" in capsys.readouterr().err


def test_show_of_a_damaged_or_missing_file_is_one_line(store, capsys):
    base = next((store / "results").rglob("TrainBase/*.h5"))
    base.write_bytes(b"x")
    for path in (base, store / "none.h5"):
        assert main(["show", str(path)]) == 35
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert str(path) in error


def test_methods_and_schema(capsys):
    assert main(["methods"]) == 0
    assert "ThresNet" in capsys.readouterr().out
    assert main(["schema"]) == 0
    assert "numEpochs" in json.dumps(json.loads(capsys.readouterr().out))


def test_a_mistake_is_one_line(tmp_path, capsys):
    for command in ("plan", "status", "verify"):
        assert main([command, str(tmp_path / "none.yaml")]) == 35
        assert capsys.readouterr().err.count("\n") == 1


def rubbish(store: Path) -> dict[str, Path]:
    """Leave what killed runs leave, and what living ones have."""
    base = next((store / "results").rglob("TrainBase/*.h5"))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    left = {
        "checkpoint of a result that is there": checkpoint_path(base),
        "checkpoint of one that is not": checkpoint_path(base.with_name("net9.h5")),
        "temporary file of a dead process": base.with_name(f".{base.name}.tmp.{host}.{ended.pid}.00ff"),
        "temporary file of a living one": base.with_name(f".{base.name}.tmp.{host}.{os.getpid()}.00ff"),
        "temporary file of another machine": base.with_name(f".{base.name}.tmp.elsewhere.1.00ff"),
    }
    for path in left.values():
        path.touch()
    return left


def test_gc_asks_and_removes_only_what_nobody_needs(store, capsys, monkeypatch):
    left = rubbish(store)
    answers = iter(["n", "y"])
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    assert main(["gc", str(store / "results")]) == 0
    assert all(path.exists() for path in left.values())
    assert main(["gc", str(store / "results")]) == 0
    gone = [what for what, path in left.items() if not path.exists()]
    assert gone == ["checkpoint of a result that is there", "temporary file of a dead process"]
    assert main(["verify", str(store / "results")]) == 0


def test_gc_with_nothing_to_do(store, capsys):
    assert main(["gc", str(store / "results"), "--yes"]) == 0
    assert "Nothing to remove" in said(capsys)
