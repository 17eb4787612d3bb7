"""Partial reports that a page asks for: what is run, for whom, and what becomes of it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.results.run_records import experiment_path, write_record
from luigi_prune.web import watched_results
from tests.web.sample import Sample, ask, ask_json, in_the_middle, served

OWN = {"X_Requested_With": "luigi_prune"}
PRINTED = "tiny: PARTIAL, 2 of 9 results missing: /somewhere/report.html"


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    monkeypatch.setattr(watched_results, "_REFRESH_SECONDS", 0.0)
    made = in_the_middle(tmp_path)
    made.finish(made.task("Evaluate"))
    return made


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Have a shell script in place of Python; it notes its arguments and waits for a file."""

    def make(rest: str) -> Path:
        path, asked = tmp_path / "program", tmp_path / "asked"
        path.write_text(f"#!/bin/sh\necho $* >> {asked}\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.02; done\n{rest}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        return asked

    return make


def partial(port: int, sample: Sample, *, until: str = "") -> dict[str, Any]:
    """Return the page's news of the partial report, once it has a state."""
    deadline = time.monotonic() + 30
    while True:
        found: dict[str, Any] = ask_json(port, f"state/{sample.id}")["partial"]
        if not until or found.get("state") == until:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def start(port: int, sample: Sample, **headers: str) -> tuple[int, str]:
    status, body, _ = ask(port, f"/experiments/api/report/{sample.id}", "POST", **headers)
    return status, body.decode()


def test_the_command_of_the_report_is_run_once_at_a_time_and_its_outcome_shown(sample, program, tmp_path):
    asked = program(f"echo noise; echo {shlex.quote(PRINTED)}")
    with served(sample.results) as port:
        assert start(port, sample)[0] == 403  # not as this page asks
        assert ask(port, f"/experiments/api/report/{sample.id}", **OWN)[0] == 405
        assert ask(port, "/experiments/api/report/0-000000000000", "POST", **OWN)[0] == 404
        assert partial(port, sample) == {"reason": ""}
        assert start(port, sample, **OWN)[0] == 200
        assert partial(port, sample)["state"] == "writing"
        assert start(port, sample, **OWN) == (409, "A report is being written already; try again when it is there\n")
        (tmp_path / "go").touch()
        assert partial(port, sample, until="written")["message"] == "2 of 9 results missing"
    file, key = sample.experiment.config, sample.experiment.key
    assert asked.read_text() == f"-m luigi_prune report {file} --key {key}\n"


def test_a_failure_is_shown_and_may_be_mended(sample, program, tmp_path):
    (tmp_path / "go").touch()
    program("echo 'warning' >&2; echo 'error: tiny.yaml: <b>' >&2; exit 35")
    with served(sample.results) as port:
        start(port, sample, **OWN)
        assert partial(port, sample, until="failed")["message"] == "tiny.yaml: <b>"
        sys.executable = str(tmp_path / "missing")
        start(port, sample, **OWN)
        while "No such file" not in (message := partial(port, sample, until="failed")["message"]):
            assert message == "tiny.yaml: <b>"
        program(f"echo {shlex.quote(PRINTED)}")
        start(port, sample, **OWN)
        assert partial(port, sample, until="written")


def test_nothing_is_run_in_read_only_mode(sample, program):
    asked = program("true")
    with served(sample.results, read_only=True) as port:
        assert "partial" not in ask_json(port, f"state/{sample.id}")
        assert start(port, sample, **OWN)[0] == 403
    assert not asked.exists()


def record_of(sample: Sample) -> Path:
    return experiment_path(sample.results, sample.experiment.name, sample.experiment.key)


def finish_the_report(sample: Sample) -> None:
    path = sample.results / sample.task("Report").path
    path.parent.mkdir(parents=True)
    path.touch()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sample: (sample.results / sample.task("Evaluate").path).unlink(), "No network is evaluated yet"),
        (finish_the_report, "The report exists"),
        (
            lambda sample: write_record(record_of(sample), sample.experiment.model_copy(update={"config": ""})),
            "Its run was started by an earlier version",
        ),
        (lambda sample: record_of(sample).chmod(0o664), "The record of its run belongs to another user, or others"),
        (lambda sample: record_of(sample).rename(record_of(sample).with_name("x.tasks.json")), "The record of its run"),
    ],
    ids=["no evaluation", "whole report", "earlier version", "writable by others", "another record"],
)
def test_reasons_against_a_report(sample, program, change, reason):
    """A record is text in a folder that others may write to, and its file may hold code."""
    asked = program("true")
    change(sample)
    with served(sample.results) as port:
        assert partial(port, sample)["reason"].startswith(reason)
        status, body = start(port, sample, **OWN)
    assert (status, body.startswith(reason)) == (409, True)
    assert not asked.exists()


def test_the_file_is_that_of_the_user_s_own_record(sample, program, tmp_path):
    """Another record may claim to be the same experiment."""
    (tmp_path / "go").touch()
    asked = program("true")
    other = sample.experiment.model_copy(update={"config": "/somebody/else.yaml"})
    for name in ("a", "z"):
        write_record(record_of(sample).with_name(f"{name}.tasks.json"), other)
        record_of(sample).with_name(f"{name}.tasks.json").chmod(0o666)
    with served(sample.results) as port:
        assert start(port, sample, **OWN)[0] == 200
        partial(port, sample, until="written")
    assert sample.experiment.config in asked.read_text()
    assert "somebody" not in asked.read_text()
