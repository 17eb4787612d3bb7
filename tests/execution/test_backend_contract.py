"""What every backend promises, our own and that of a package; and that commands need to know none of them by name."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import luigi.configuration
import pytest
from listening import submit, wait_until
from luigi.configuration import LuigiConfigParser

from luigi_prune.__main__ import main
from luigi_prune.errors import ConfigError
from luigi_prune.execution import backends
from luigi_prune.execution.backends import (
    BUILT_IN,
    GROUP,
    backend_settings,
    choose,
    locate_jobs,
    names,
    remote_jobs,
    row,
)
from luigi_prune.execution.inline import InlineBackend
from luigi_prune.execution.job import Backend, ComputeSettings, Job
from luigi_prune.execution.process_claims import ProcessClaims
from luigi_prune.execution.remote_jobs import RemoteJobs
from luigi_prune.execution.slurm import slurm_backend
from luigi_prune.identity.paths import jobs_folder
from luigi_prune.workflow.job_task import JobTask, walk
from luigi_prune.workflow.settings import FAMILIES, compute_settings
from tests.experiments import reports, write_experiment
from tests.slurm.fake_slurm import FakeSlurm, fake_slurm
from tests.slurm.recording_listener import site

__all__ = ["fake_slurm"]
PACKAGE = Path(backends.__file__).parents[1]
EVERY = (*BUILT_IN, "toy")


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    backends._foreign.cache_clear()
    yield
    backends._foreign.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that installs a package with entry points, as far as importlib can tell."""

    def add(package: str, **entries: str) -> None:
        about = tmp_path / "site" / f"{package}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {place}\n" for name, place in entries.items())
        (about / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        backends._foreign.cache_clear()

    return add


@pytest.fixture
def toy(install: Any) -> None:
    install("toy-cluster", toy="toy_cluster:TOY")


class Nodes:
    """Compute nodes of the fake SLURM: a thread that runs what stands in its queue."""

    def __init__(self, slurm: FakeSlurm):
        self._slurm, self._over = slurm, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            with self._slurm.state() as now:
                waiting = [job_id for job_id, job in now["queue"].items() if job["state"] == "PENDING"]
            for job_id in waiting:
                self._slurm.run(job_id)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(params=EVERY)
def backend(request, light_server, toy, tmp_path, monkeypatch) -> Iterator[Backend]:
    """Return each backend, made as a run makes it."""
    own = None
    nodes = None
    if request.param == "slurm":
        monkeypatch.setattr(slurm_backend, "_TICK_SECONDS", 0.05)
        monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent), prepend=":")
        nodes = Nodes(request.getfixturevalue("fake_slurm"))
        own = site(poll_seconds=0.2, poll_seconds_max=0.4, gather_seconds=0.1, array_size=1)
    made = choose(ComputeSettings(backend=request.param, device="cpu", jobs=1, processes={"TrainBase": 1}, own=own))
    yield made
    made.close()
    if nodes:
        nodes.close()


@pytest.fixture
def make(tmp_path: Path, backend: Backend) -> Any:
    """Return a function that makes jobs for the backend, as a task does."""

    def job(function: str, tag: str = "job", **request: Any) -> Job:
        output = tmp_path / "results" / f"{tag}.json"
        output.parent.mkdir(exist_ok=True)
        return Job(
            function=f"tests.slurm.slurm_functions:{function}",
            name=f"{function} {tag}",
            family="Retrain",
            request={"output": str(output), **request},
            output=str(output),
            log=str(tmp_path / "results" / "logs" / f"{tag}.log"),
            folder=str(jobs_folder(tmp_path / "results", backend.name)),
        )

    return job


def test_a_job_that_succeeds_is_told_of_once_and_its_result_is_there(backend, make):
    ears = [submit(backend, make("write", tag)) for tag in ("a", "b")]
    assert [ear.outcome().status for ear in ears] == ["done", "done"]
    assert [json.loads(Path(make("write", tag).output).read_text())["rank"] for tag in ("a", "b")] == [0, 0]
    backend.close()
    assert [(ear.starts, len(ear.outcomes)) for ear in ears] == [(1, 1), (1, 1)]


def test_a_job_that_fails_brings_its_traceback(backend, make):
    outcome = submit(backend, make("fail")).outcome()
    assert outcome.status == "failed"
    assert "ValueError: the seventh layer is missing" in outcome.message
    assert not Path(make("fail").output).exists()


def test_a_job_that_another_driver_computes_is_submitted_by_none_of_those_that_make_claims(backend, make):
    job = make("write")
    other = ProcessClaims()
    other.take(job.output)
    if backend.makes_claims(job.family):
        assert submit(backend, job).outcome().status == "elsewhere"
        other.release(job.output)
    assert submit(backend, job).outcome().status == "done"
    other.close()


def test_a_job_is_cancelled(backend, make):
    if isinstance(backend, InlineBackend):
        backend.cancel(make("count"))  # when anyone can ask, no job is running
        return
    job = make("count", steps=10**6, pause=0.01)
    ear = submit(backend, job)
    wait_until(lambda: ear.starts)
    backend.cancel(job)
    assert (ear.outcome().status, ear.outcome().retry) == ("failed", False)
    assert not Path(job.output).exists()


def test_a_backend_says_what_it_is(backend):
    assert backend.name in EVERY
    assert backend.slots >= 1
    for family in FAMILIES:
        for name, count in backend.resources(family).items():
            assert isinstance(name, str)
            assert count >= 0
    assert isinstance(backend.remark(), str)
    backend.close()
    backend.close()  # again, without harm


@pytest.mark.parametrize("name", EVERY)
def test_what_commands_ask_has_an_answer_in_an_empty_folder(name, toy, tmp_path):
    place = row(name).jobs
    remote = backends._load(place, name)() if place else RemoteJobs()
    assert remote.where([tmp_path / "none.h5"]) == {}
    assert remote.outputs(tmp_path) == remote.submitted(tmp_path) == remote.leftovers(tmp_path) == []
    assert remote.cancellation([tmp_path / "none.h5"]).jobs == 0
    assert remote.same_id("12", "12")
    assert not remote.same_id("13", "12")


@pytest.fixture
def jobs(tmp_path, toy) -> list[Job]:
    """Return jobs of an experiment that wait in the toy cluster."""
    import toy_cluster

    file = write_experiment(tmp_path)
    found = [task.job("toy") for task in walk(*reports(file)) if isinstance(task, JobTask)]
    for number, job in enumerate(found[:3]):
        toy_cluster.book(job, f"box-{number}")
    return found[:3]


def test_commands_serve_a_cluster_that_they_have_never_heard_of(tmp_path, jobs, capsys):
    config, results = str(tmp_path / "tiny.yaml"), str(tmp_path / "results")
    assert jobs[0].folder == str(jobs_folder(results, "toy"))
    assert set(locate_jobs([Path(job.output) for job in jobs])) == {Path(job.output) for job in jobs}
    assert main(["status", config, "--once"]) == 0
    out = capsys.readouterr().out
    assert f"{jobs[0].name}: toy job box-0, in the box" in out
    assert "0 of 3 toy jobs run" in out
    start = Path(f"{jobs[1].log}.start")
    start.parent.mkdir(parents=True)
    start.write_text("toy: hello\nno such box\n")
    assert main(["logs", "box-1", "--results", results]) == 0
    assert capsys.readouterr().out == "no such box\n"
    Path(jobs[2].log).write_text("process 1 of 1, toy job box-7\n")  # an earlier try, whose request is gone
    assert main(["logs", "box-7", "--results", results]) == 0
    Path(jobs[2].output).touch()
    assert main(["gc", results, "--yes"]) == 0
    assert "book of a result that is there" in capsys.readouterr().out
    assert main(["cancel", config, "--yes"]) == 0
    assert "2 toy jobs cancelled" in capsys.readouterr().out
    assert locate_jobs([Path(job.output) for job in jobs]) == {}
    assert main(["cancel", "--results", results]) == 0
    assert "No job is on its way." in capsys.readouterr().out


def test_a_foreign_backend_reads_its_own_sections(toy, monkeypatch):
    parser = LuigiConfigParser()
    monkeypatch.setattr(luigi.configuration, "get_config", lambda: parser)
    parser.read_string("[compute]\nbackend=toy\n[toy]\nqueue=slow\n[toy.TrainBase]\nqueue=fast\n[toys]\nx=1\n")
    settings = compute_settings()
    assert settings.own == "fast"
    made = choose(settings)
    assert made.queue == "fast"
    parser.read_string("[toy]\nquue=1\n")
    with pytest.raises(ConfigError, match=r"\[toy\] quue: unknown key"):
        compute_settings()


def test_backends_without_settings_have_none():
    assert backend_settings(ComputeSettings(backend="local"), {}) is None
    assert backend_settings(ComputeSettings(backend="auto"), {}) is None


def test_foreign_backends_that_cannot_be_used_are_named_in_one_line(install, tmp_path, caplog):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "broken.py").write_text(
        "from luigi_prune.execution.backends import BackendRow\nOTHER = BackendRow('x', 'y:z')\nNUMBER = 3\n"
        "GONE = BackendRow('gone', 'broken:Gone', jobs='nowhere:Jobs')\n"
    )
    install("broken", absent="no_such:ROW", number="broken:NUMBER", other="broken:OTHER", gone="broken:GONE")
    assert names()[len(BUILT_IN) :] == ["absent", "number", "other", "gone"]
    for name, words in {
        "absent": "backend 'absent' of broken 1.0 (no_such:ROW) cannot be used: ModuleNotFoundError",
        "number": "expected a BackendRow, got a int",
        "other": "its row is called 'x'",
        "gone": "backend 'gone': broken:Gone cannot be imported: AttributeError",
    }.items():
        with pytest.raises(ConfigError) as caught:
            choose(ComputeSettings(backend=name))
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert [remote.label for remote in remote_jobs()] == ["local job", "SLURM job"]  # commands go on without them
    assert len(caplog.messages) == 4
    with pytest.raises(ConfigError, match="'loca' is not a backend; did you mean 'local'"):
        row("loca")


@pytest.mark.parametrize("name", ["slurm", "auto"])
def test_a_foreign_backend_may_not_take_a_name_of_ours(install, name):
    install("rude", **{name: "rude:ROW"})
    with pytest.raises(ConfigError, match=f"backend '{name}' of rude 1.0 has the name of one of luigi_prune"):
        names()


def test_two_packages_with_one_name_are_refused(install):
    install("one", pbs="one:ROW")
    install("two", pbs="two:ROW")
    with pytest.raises(ConfigError, match=r"'pbs' of .* has the name of one of"):
        row("pbs")


def test_a_class_of_another_name_than_its_row_is_refused(monkeypatch):
    entry = metadata.EntryPoint("misnamed", "test_backend_contract:MISNAMED", GROUP)
    monkeypatch.setattr(backends, "entry_points", lambda group=GROUP: [entry])
    with pytest.raises(ConfigError, match="'misnamed' cannot be used: its class is called 'inline'"):
        choose(ComputeSettings(backend="misnamed"))


MISNAMED = backends.BackendRow("misnamed", "luigi_prune.execution.inline:InlineBackend")


def test_nothing_outside_a_backend_s_folder_names_it():
    outside = [*PACKAGE.glob("commands/*.py"), *PACKAGE.glob("workflow/*.py"), PACKAGE / "__main__.py"]
    assert len(outside) > 10
    assert [path.name for path in outside if "slurm" in path.read_text().lower()] == []
