"""The command itself, on any machine: whatever a step does, the next one runs and the record says what happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import driver, run
from benchmarks.gpu.facts import FAILED, OK, SKIPPED
from benchmarks.gpu.steps import STEPS, Step

COMMAND = Path(run.__file__)


def step(name: str, seconds: float = 120, **more: bool) -> Step:
    return Step(name, f"tests.gpu.pretended_steps:{name}", f"it {name}", seconds, **more)


def run_steps(*steps: Step, seconds: float = 300, lanes: int = 3) -> tuple[dict[str, dict], list[str]]:
    """Return the record of each step by its name, and the names of the steps in the order of their facts."""
    reported: list[str] = []
    deadline = time.monotonic() + seconds
    done = driver.run_steps(
        steps, lambda name, fact: reported.append(name), device="cpu", deadline=deadline, lanes=lanes, cores=1
    )
    return {record["step"]: record for record in done}, reported


@pytest.mark.slow
def test_a_step_that_fails_crashes_or_hangs_stops_no_other():
    steps = [step("hangs", seconds=30), step("crashes"), step("wrong"), step("silent"), step("fine")]
    records, reported = run_steps(*steps)
    assert {name: record["verdict"] for name, record in records.items()} == {
        "hangs": FAILED, "crashes": FAILED, "wrong": FAILED, "silent": FAILED, "fine": OK,
    }  # fmt: skip
    facts = {name: {fact["name"]: fact for fact in record["facts"]} for name, record in records.items()}
    assert facts["fine"]["one is one"] == {"name": "one is one", "value": "cpu", "verdict": OK, "numbers": {"seen": 1}}
    assert facts["wrong"]["a division"]["value"] == "ZeroDivisionError: division by zero"
    assert facts["wrong"]["what comes after it"]["verdict"] == OK
    assert facts["crashes"]["before the crash"]["verdict"] == OK
    assert "ended with -6" in facts["crashes"]["the step itself"]["value"]
    assert "killed at its limit of 30 s" in facts["hangs"]["the step itself"]["value"]
    assert "reported nothing" in facts["silent"]["the step itself"]["value"]
    assert "ZeroDivisionError" in records["wrong"]["log"]
    pid = facts["hangs"]["before it hangs"]["numbers"]["pid"]
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"  # its processes ended with it
    assert set(reported) == set(records)


@pytest.mark.slow
def test_the_total_time_ends_what_runs_and_skips_the_rest_by_name():
    records, _ = run_steps(step("hangs", seconds=600), step("fine", alone=True), seconds=14)
    assert "the command's time was over" in records["hangs"]["facts"][-1]["value"]
    assert records["fine"]["verdict"] == SKIPPED
    assert records["fine"]["facts"][0]["value"] == "no time left"


def test_steps_that_measure_time_run_alone():
    running = [type("Running", (), {"step": step("fine", alone=True)})()]
    assert not driver._may_start(step("wrong"), running, lanes=3)
    running = [type("Running", (), {"step": step("fine")})()]
    assert driver._may_start(step("wrong"), running, lanes=3)
    assert not driver._may_start(step("wrong"), running, lanes=1)
    assert not driver._may_start(step("wrong", alone=True), running, lanes=3)


@pytest.mark.slow
def test_without_a_gpu_its_steps_are_skipped_by_name(tmp_path):
    out = tmp_path / "results.json"
    command = [sys.executable, str(COMMAND), "--out", str(out), "--only", "masks", "--only", "vgg16"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=200)
    assert found.returncode == 0, found.stdout + found.stderr
    record = json.loads(out.read_text())
    assert record["machine"]["cuda"] is False
    assert record["machine"]["versions"]["torch"]
    assert [(one["step"], one["verdict"]) for one in record["steps"]][1:] == [("masks", SKIPPED), ("vgg16", SKIPPED)]
    assert "no CUDA device" in found.stdout
    assert "nothing failed" in found.stdout


def test_a_step_that_does_not_exist_is_one_line():
    with pytest.raises(SystemExit, match="--only maskz: no such step; choose from masks, experiment"):
        run.chosen_steps(["maskz"])
    assert run.chosen_steps([]) == list(STEPS)


def test_the_table_counts_verdicts_and_names_what_failed():
    facts = [{"name": "a", "value": "1", "verdict": OK}, {"name": "b", "value": "2", "verdict": FAILED}]
    lines = run.table([{"step": "masks", "verdict": FAILED, "seconds": 1.25, "facts": facts}], 2).splitlines()
    assert lines[1].split() == ["masks", "FAILED", "1", "1", "0", "0", "1.2"]
    assert lines[2:] == ["FAILED  masks: b: 2", "FAILED, 2 s in all"]
