"""docs/extending.md: its examples run as they are printed, in a folder outside the package, on every backend."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from luigi_prune import api, registry
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.execution import backends
from luigi_prune.execution.job import ComputeSettings, Job
from luigi_prune.registry.row_reading import ROWS
from luigi_prune.results.hdf5_file import read_about, read_result
from tests.execution.listening import submit
from tests.experiments import command, contents
from tests.extending.examples import PAGE, blocks, lay_down

ROOT = PAGE.parents[1]


def run(folder: Path, backend: str) -> dict[str, str]:
    """Run the page's experiment and return the content of every result."""
    folder.mkdir()
    process = command(lay_down(folder), backend=backend, config="device=cpu\n")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return contents(folder / "results")


@pytest.mark.slow
def test_they_run_inline_and_in_warm_processes_to_the_same_arrays(tmp_path: Path) -> None:
    inline = run(tmp_path / "inline", "inline")
    assert len(inline) == 10
    assert run(tmp_path / "local", "local") == inline
    parts: set[str] = set()
    for path in (tmp_path / "local" / "results").rglob("*.h5"):
        parts |= {registry.plain(name) for name in read_about(path)["provenance"].get("parts", {})}
    files = {name.partition(":")[0] + ".py" for name in parts}
    others = {"scores.py", "allocations.py", "processes.py", "experiment.yaml", "sentences.py", "sentences.yaml"}
    assert files | others == set(blocks())
    (tables,) = (tmp_path / "local" / "results").rglob("results.h5")
    arrays = read_result(tables).arrays
    assert arrays["metric/lower_is_better"].tolist() == [False, True]
    assert list(arrays["axes/metric"]) == ["TopK1", "Perplexity"]
    assert (arrays["test/blobs:BLOBS/TopK1"] > 0.8).all()
    (page,) = (tmp_path / "local" / "results").rglob("report.html")
    assert "SpreadNet" in page.read_text()
    assert "Lower is better." in page.read_text()


def test_a_network_of_two_inputs_is_trained_pruned_and_evaluated(tmp_path: Path) -> None:
    lay_down(tmp_path)
    process = command(tmp_path / "sentences.yaml", backend="inline", config="device=cpu\n")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    (tables,) = (tmp_path / "results").rglob("results.h5")
    assert (read_result(tables).arrays["test/sentences:SENTENCES/TopK1"] > 0.8).all()
    retrained = [read_result(path).arrays for path in (tmp_path / "results").rglob("*-retrain-*.h5")]
    assert len(retrained) == 2
    assert all(0.6 < arrays["size"] / arrays["original_size"] < 0.75 for arrays in retrained)


def test_planning_them_imports_neither_torch_nor_them(tmp_path: Path) -> None:
    file = lay_down(tmp_path)
    code = (
        "import sys; from luigi_prune.commands.plan import reports_of, to_run\n"
        f"print(len(to_run(reports_of({str(file)!r}))), {{'torch', 'pruners', 'networks'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split("\n")[0] == "10 set()", done.stderr


def test_a_bare_function_prunes(tmp_path: Path) -> None:
    scope: dict[str, object] = {}
    exec(blocks()["pruners.py"], scope)
    network = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    example = torch.randn(2, 6)
    bare = api.prune(network, score=scope["spread"], granularity="filter", keep_ratio=0.5, example_input=example)
    row = api.prune(network, scope["SPREAD_NET"], keep_ratio=0.5, example_input=example)
    assert bare.method == "spread"
    assert torch.equal(bare.layers[0].mask, row.layers[0].mask)
    assert 0.4 < bare.keep_ratio < 0.6


def test_the_page_has_an_example_of_every_kind(tmp_path: Path) -> None:
    (experiment,) = load_experiments(lay_down(tmp_path))
    settings = experiment.model_dump_json()
    assert settings.count("@") > 8
    text = PAGE.read_text()
    for kind in (*ROWS, "score", "allocation", "backend"):
        noun = "data set" if kind == "dataset" else kind
        assert f"## A {noun}\n" in text or f"## An {noun}\n" in text


def test_the_backend_runs_jobs_and_reports_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "my_cluster-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-cluster\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[luigi_prune.backends]\nprocesses = processes:PROCESSES\n")
    lay_down(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    backends._foreign.cache_clear()
    jobs = [
        Job(f"tests.slurm.slurm_functions:{function}", function, "Retrain", {"output": str(path)}, str(path), "")
        for function, path in (("write", tmp_path / "a.json"), ("fail", tmp_path / "b.json"))
    ]
    try:
        backend = backends.choose(ComputeSettings(backend="processes", device="cpu", jobs=1))
        written, failed, waiting = [submit(backend, job) for job in (*jobs, replace(jobs[0], output="c.json"))]
        backend.cancel(replace(jobs[0], output="c.json"))
        assert written.outcome().status == "done"
        assert (tmp_path / "a.json").exists()
        assert "the seventh layer is missing" in failed.outcome().message
        assert waiting.outcome().message == "cancelled"
        backend.close()
    finally:
        backends._foreign.cache_clear()


def test_every_block_of_python_is_valid() -> None:
    for name, text in blocks().items():
        if name.endswith(".py"):
            ast.parse(text)
            assert max(map(len, text.splitlines())) <= 120
