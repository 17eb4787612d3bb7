"""The state of each task follows from files: results, news, claims, checkpoints."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict

import h5py
import pytest

from luigi_prune.execution import claims
from luigi_prune.execution.failures import cause
from luigi_prune.execution.remote_jobs import JobPlace
from luigi_prune.execution.slurm.heartbeat import Heartbeat, heartbeat_path
from luigi_prune.identity.paths import checkpoint_path
from luigi_prune.report.tensorboard import epoch_log
from luigi_prune.results.run_records import TaskNews, experiment_path, runs_folder
from luigi_prune.web import watched_results
from luigi_prune.web.answers import overview, task_in_full
from luigi_prune.web.watched_results import WatchedResults
from tests.web.sample import HTML, Sample, in_the_middle


def states(sample: Sample) -> dict[str, str]:
    """Return the state of each task by title."""
    ((experiment, state),) = WatchedResults(sample.results).read().values()
    return {task.title: of_task for task, of_task in zip(experiment.tasks, state.states, strict=True)}


def test_every_state_at_once(tmp_path):
    sample = in_the_middle(tmp_path)
    found = states(sample)
    prunes = [title for title in found if title.startswith("Prune") and " 0.5 " in title]
    assert [found[title] for title in prunes] == ["running", "queued", "failed"]
    reader = prunes[2].replace("Prune", "Retrain")
    assert found[reader] == found["Aggregate tiny"] == found["Report tiny"] == "blocked"
    assert found["TrainBase Digits lenet300_100 net0"] == "done"
    assert found[prunes[0].replace("Prune", "Retrain")] == "waiting"


@pytest.mark.parametrize(
    ("age", "ended", "expected"),
    [(0.0, None, ["running", "failed"]), (999.0, None, ["stopped", "failed"]), (0.0, 1.0, ["stopped", "failed"])],
)
def test_a_driver_that_is_gone_runs_nothing_but_its_failures_stay(tmp_path, age, ended, expected):
    sample = Sample(tmp_path)
    base, prune = sample.task("TrainBase"), sample.task("Prune")
    sample.tell(age, running={base.key: TaskNews(fraction=0.5)}, failed={prune.key: TaskNews(message="x")}, ended=ended)
    found = states(sample)
    assert [found[base.title], found[prune.title]] == expected


def test_a_new_run_has_not_failed_where_the_last_one_did(tmp_path):
    sample = Sample(tmp_path)
    sample.finish(sample.task("TrainBase"))
    prune = sample.task("Prune")
    sample.tell(ended=time.time(), failed={prune.key: TaskNews(message="x")})
    assert states(sample)[prune.title] == "failed"
    sample.tell(pid=2, started=time.time() + 1, ended=None, failed={})
    assert states(sample)[prune.title] == "waiting"


def test_a_job_without_a_driver_is_found_by_its_claim(tmp_path, monkeypatch):
    sample = Sample(tmp_path)
    base = sample.results / sample.task("TrainBase").path
    base.parent.mkdir(parents=True)
    (base.parent / f".{base.name}.claim-1").write_text("{}")
    place = JobPlace("SLURM job 7 on n3: 40%  epoch 4/10", running=True)
    monkeypatch.setattr(watched_results, "locate_jobs", lambda paths: dict.fromkeys(paths, place))
    answer = task_in_full([WatchedResults(sample.results)], sample.task("TrainBase").key[:12])
    assert answer["state"] == "running"
    assert {name: answer["news"][name] for name in ("job", "node", "message")} == {
        "job": "SLURM job 7",
        "node": "n3",
        "message": "40%  epoch 4/10",
    }


@pytest.mark.parametrize(("inside", "expected"), [(True, "running"), (False, "waiting")])
def test_a_claim_of_another_place_is_not_read(tmp_path, inside, expected):
    sample = Sample(tmp_path)
    base = sample.task("TrainBase")
    submission = (sample.results if inside else tmp_path) / "slurm" / "lp-1"
    request = {"job": {"output": str(sample.results / base.path)}}
    submission.mkdir(parents=True)
    (submission / "0.json").write_text(json.dumps(request))
    heartbeat = heartbeat_path(submission, 0)
    heartbeat.parent.mkdir()
    heartbeat.write_text(json.dumps(asdict(Heartbeat(host="n1", message="secret"))))
    assert claims.make_claim(sample.results / base.path, submission, 0, 1)
    answer = task_in_full([WatchedResults(sample.results)], base.key)
    assert answer["state"] == expected
    assert ("secret" in str(answer)) == inside


def test_a_checkpoint_without_a_run_is_a_training_that_can_go_on(tmp_path):
    sample = Sample(tmp_path)
    base = sample.task("TrainBase")
    path = checkpoint_path(sample.results / base.path)
    path.parent.mkdir(parents=True)
    path.touch()
    assert states(sample)[base.title] == "stopped"


def test_a_result_in_a_folder_that_is_not_watched_is_known_from_its_readers(tmp_path):
    sample = Sample(tmp_path, directories={"results": str(tmp_path / "r"), "trained_networks": str(tmp_path / "t")})
    base, prune = sample.task("TrainBase"), sample.task("Prune")
    assert base.path.startswith("/")
    assert states(sample)[base.title] == "waiting"
    sample.finish(prune)
    assert states(sample)[base.title] == "done"


def test_the_queue_names_job_reason_and_expected_start(tmp_path):
    sample = in_the_middle(tmp_path)
    queued = next(iter(sample.news.queue))
    news = task_in_full([WatchedResults(sample.results)], queued[:12])["news"]
    assert (news["job"], news["reason"], news["expected"]) == ("SLURM job 12_3", "Priority", "expected to start 12:00")


def test_a_finished_task_shows_what_its_file_holds(tmp_path):
    sample = in_the_middle(tmp_path)
    answer = task_in_full([WatchedResults(sample.results)], sample.task("TrainBase").key)
    assert answer["result"]["provenance"] == {"host": "n7", "job": "12_3"}
    assert answer["result"]["measured"] == {"trainbase_seconds": 1.5}
    assert answer["curves"] == {"train/loss": [(1, 2.0), (2, 1.0)], "validation/TopK1": [(1, 0.5)]}


def test_a_training_shows_its_curves_while_it_runs_and_a_resumed_one_replaces_them(tmp_path):
    sample = Sample(tmp_path)
    base = sample.task("TrainBase")
    first, second = epoch_log(sample.results / base.curves), epoch_log(sample.results / base.curves)
    for epoch, value in enumerate((3.0, 2.0, 9.0)):
        first(epoch, {"train/loss": value})
    second(2, {"train/loss": 1.0})
    answer = task_in_full([WatchedResults(sample.results)], base.key)
    assert answer["curves"] == {"train/loss": [(1, 3.0), (2, 2.0), (3, 1.0)]}


def test_a_result_that_links_to_another_file_does_not_show_it(tmp_path):
    sample = Sample(tmp_path)
    base = sample.task("TrainBase")
    sample.finish(base)
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["spec"] = '{"secret": 1}'
    with h5py.File(sample.results / base.path, "r+") as file:
        del file["about/spec"], file["about/provenance"]
        file["about/spec"] = h5py.ExternalLink(str(secret), "spec")
        outside = [(str(secret), 0, 8)]
        file["about"].create_dataset("provenance", (8,), "S1", external=outside)
    answer = task_in_full([WatchedResults(sample.results)], base.key)
    assert answer["result"]["spec"] == answer["result"]["provenance"] == {}


@pytest.mark.parametrize("text", ["", "{", '{"name": 1}', "[]", '{"tasks": []}', "\0"])
def test_damaged_records_are_left_out(tmp_path, text):
    sample = in_the_middle(tmp_path)
    experiment_path(sample.results, "other", "0" * 64).write_text(text)
    (runs_folder(sample.results) / "x-1-2.news.json").write_text(text)
    (found,) = overview([WatchedResults(sample.results)])
    assert found["name"] == "tiny"
    assert found["estimate"] == 600


def test_methods_from_a_file_beside_the_experiment_have_labels_and_rows(tmp_path):
    (tmp_path / "labels_of.py").write_text(
        "from luigi_prune.registry import MethodRow\n"
        "OWN = MethodRow(name='OwnNet', granularity='filter', score=lambda problem: [], allocation='uniform')\n"
    )
    sample = Sample(tmp_path, experiments__methods=["ThresNet", "labels_of:OWN"])
    assert {task.method for task in sample.experiment.tasks} - {""} == set(sample.experiment.labels)
    assert sample.experiment.labels["labels_of:OWN"] == "OwnNet"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ["estimate", "started", "since", "fraction"])
def test_news_with_a_number_that_is_none_are_left_out(tmp_path, number, place):
    sample = in_the_middle(tmp_path)
    sample.tell(estimate=600.0, running={sample.task("Prune").key: TaskNews(since=1.5, fraction=0.5)})
    path = next(runs_folder(sample.results).glob("*.news.json"))
    text = re.sub(rf'"{place}":[0-9.]+', f'"{place}":{number}', path.read_text())
    assert text != path.read_text()
    path.write_text(text)
    (found,) = overview([WatchedResults(sample.results)])
    assert (found["drivers"], found["counts"]["done"]) == ([], 1)


@pytest.mark.parametrize(("start", "stop"), [(8, 600), (600, 4000), (0, 10**6)])
def test_a_damaged_result_is_called_so(tmp_path, start, stop):
    sample = in_the_middle(tmp_path)
    base = sample.task("TrainBase")
    path = sample.results / base.path
    data = bytearray(path.read_bytes())
    data[start:stop] = bytes(255 - byte for byte in data[start:stop])
    path.write_bytes(data)
    answer = task_in_full([WatchedResults(sample.results)], base.key)
    assert (answer["state"], answer["result"], answer["settings"] != {}) == ("done", {"damaged": True}, True)


def test_the_line_of_a_failure():
    assert cause("Traceback (most recent call last):\n  File x\nValueError: no\nlog: a") == "ValueError: no"
    assert cause(f"killed {HTML}\nlast lines of x:\nmore") == f"killed {HTML}"
    assert cause("") == ""
