"""A real worker at our luigid: Luigi's list shows failures and leads to the page of the task."""

from __future__ import annotations

import json
from typing import Any

import luigi
import pytest

from luigi_prune.execution.job import Outcome
from luigi_prune.web import watched_results
from luigi_prune.workflow.tasks import RunExperiment
from tests.experiments import write_experiment
from tests.web.sample import ask, ask_json, served

TOKEN = "a-token-of-enough-letters"


def listed(port: int, status: str) -> dict[str, Any]:
    status_, body, _ = ask(port, f"/api/task_list?data=%7B%22status%22:%22{status}%22%7D")
    assert status_ == 200
    tasks: dict[str, Any] = json.loads(body)["response"]
    return tasks


def test_a_failure_is_listed_leads_to_its_page_and_is_tried_again_by_the_next_run(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(watched_results, "_REFRESH_SECONDS", 0.0)
    file = write_experiment(tmp_path, experiments__mode="retrain")
    (tmp_path / "results").mkdir()
    backend.outcomes = {"Prune": [Outcome("failed", "no <b>", retry=False)]}
    with served(tmp_path / "results") as port:
        where = {"scheduler_host": "127.0.0.1", "scheduler_port": port, "log_level": "CRITICAL"}
        assert not luigi.build([RunExperiment(config=str(file))], **where)
        assert listed(port, "DISABLED") == {}
        (failed,) = listed(port, "FAILED").values()
        assert (failed["name"], failed["status"]) == ("Prune", "FAILED")
        assert list(failed["params"])[:5] == ["id", "method", "keep_ratio", "net", "repetition"]
        assert not {"key", "results", "spec", "directories"} & failed["params"].keys()
        key = failed["params"]["id"]
        assert failed["tracking_url"] == f"/experiments/t/{key}"
        assert ask(port, failed["tracking_url"])[0] == 200
        answer = ask_json(port, f"task/{key}")
        assert (answer["state"], answer["news"]["message"]) == ("failed", "no <b>")
        assert not answer["retry"]  # no run is at work
        assert luigi.build([RunExperiment(config=str(file))], **where)
        assert listed(port, "FAILED") == {}
        assert ask_json(port, f"task/{key}")["state"] == "done"


@pytest.mark.parametrize(
    ("server", "user", "message"),
    [
        ({"token": TOKEN}, "", "asks for a token: luigi.cfg"),
        ({"token": TOKEN}, "me:wrong@", "asks for another token: luigi.cfg"),
        ({"read_only": True}, "", "is read-only and serves no runs"),
    ],
)
def test_a_run_that_is_not_admitted_ends_with_one_line(tmp_path, backend, capsys, server, user, message):
    file = write_experiment(tmp_path)
    with served(tmp_path, **server) as port, pytest.raises(SystemExit):
        luigi.build([RunExperiment(config=str(file))], scheduler_url=f"http://{user}127.0.0.1:{port}")
    printed = capsys.readouterr().err
    assert f"the luigid at http://127.0.0.1:{port} {message}" in printed
    assert backend.submitted == []


def test_a_run_with_the_token_is_admitted(tmp_path, backend):
    file = write_experiment(tmp_path)
    with served(tmp_path, token=TOKEN) as port:
        assert luigi.build([RunExperiment(config=str(file))], scheduler_url=f"http://me:{TOKEN}@127.0.0.1:{port}")
