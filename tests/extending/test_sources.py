"""Sources are part of the key: what an edit changes, and that two modules of one name are not confused."""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path

import pytest

from luigi_prune import registry
from luigi_prune.commands.plan import reports_of, to_run
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.errors import ConfigError
from luigi_prune.registry.method_rows import BUILTIN_METHODS
from luigi_prune.registry.plugins import PartTable, load_part
from luigi_prune.registry.sources import gather
from luigi_prune.results.hdf5_file import read_result
from tests.experiments import contents, run, write_experiment

SCORE = """
from luigi_prune.registry import MethodRow

def largest(problem):
    return [layer.weight.flatten(1).abs().amax(1) for layer in problem.layers]

MAX_NET = MethodRow(name="MaxNet", score=largest)
"""
NETWORK = """
from math import prod
from torch import nn

def tiny(input_shape, output_size, width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), width), nn.ReLU(), nn.Linear(width, output_size))
"""


def experiment_in(folder: Path, **changes: object) -> Path:
    """Write a small experiment with a score and a network of one's own."""
    folder.mkdir(exist_ok=True)
    (folder / "my_score.py").write_text(SCORE)
    (folder / "my_network.py").write_text(NETWORK)
    settings = {
        "network": {"name": "my_network:tiny", "dataset": "Digits"},
        "experiments__methods": ["ThresNet", "my_score:MAX_NET"],
        "experiments__mode": "retrain",
        "experiments__spacing": [{"type": "manual", "values": [0.5]}],
        **changes,
    }
    return write_experiment(folder, **settings)


def planned(file: Path) -> dict[str, str]:
    """Return what a run would compute: title -> reason."""
    return {task.title: reason for task, reason in to_run(reports_of(str(file)))}


@pytest.mark.slow
def test_an_edit_computes_anew_just_what_depends_on_it(tmp_path: Path) -> None:
    file = experiment_in(tmp_path)
    run(file)
    assert planned(file) == {}
    before = contents(tmp_path / "results")

    edited = tmp_path / "my_score.py"
    edited.write_text(SCORE.replace("amax(1)", "amin(1)"))
    families = ("Prune", "Retrain", "Evaluate")
    changed = [title for title in planned(file) if title.startswith(families)]
    assert all("MAX_NET" in title for title in changed)
    assert sorted(planned(file)) == sorted([*changed, "Aggregate tiny", "Report tiny"])
    assert len(changed) == 3
    assert {planned(file)[title] for title in changed} == {"source"}
    started = run(file)
    assert sorted(started) == sorted([*changed, "Aggregate tiny", "Report tiny"])
    after = contents(tmp_path / "results")
    assert {path: after[path] for path in before} == before  # what was computed with the old source is still there

    edited.write_text(SCORE)  # and is found again
    assert planned(file) == {}
    (tmp_path / "my_network.py").write_text(NETWORK.replace("width=8", "width=9"))
    assert len([title for title in planned(file) if title.startswith("TrainBase")]) == 1
    assert {title.split()[0] for title in planned(file)} == {"TrainBase", *families, "Aggregate", "Report"}


def test_the_folder_is_not_part_of_the_key_but_the_source_is(tmp_path: Path) -> None:
    keys = [reports_of(str(experiment_in(tmp_path / name)))[0].key for name in ("one", "other")]
    assert keys[0] == keys[1]
    (tmp_path / "other" / "my_score.py").write_text(SCORE + "\n# a remark\n")
    assert reports_of(str(tmp_path / "other" / "tiny.yaml"))[0].key != keys[0]


@pytest.mark.slow
def test_two_modules_of_one_name_in_one_process_are_two(tmp_path: Path) -> None:
    widths = {"narrow": 5, "wide": 11}
    files = {}
    for name, width in widths.items():
        files[name] = experiment_in(tmp_path / name, experiments__methods=[])
        (tmp_path / name / "my_width.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / name / "my_network.py").write_text(  # the same file twice; what it imports late differs
            NETWORK.replace("width=8):", "width=None):\n    from my_width import WIDTH as width\n")
        )
    sizes = {}
    for name in ("narrow", "wide", "narrow"):
        shutil.rmtree(tmp_path / name / "results", ignore_errors=True)
        run(files[name])
        (trained,) = (tmp_path / name / "results").rglob("TrainBase/*.h5")
        sizes[name] = read_result(trained).group("weights")["1.weight"].shape[0]
        assert sizes[name] == widths[name]


def write(folder: Path, **modules: str) -> None:
    for name, text in modules.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def test_the_sources_are_the_module_and_its_neighbours_that_it_imports(tmp_path: Path) -> None:
    write(
        tmp_path,
        first="import json\nimport second\n\ndef f():\n    from third.inner import g\n",
        second="import first",
        third__inner="",
        third__never_imported="",
        unrelated="",
        json="raise RuntimeError('the standard library is meant')",
    )
    sources = gather(["first"], tmp_path)
    assert sorted(sources.files) == ["first.py", "second.py", "third/inner.py", "third/never_imported.py"]
    (tmp_path / "third" / "never_imported.py").write_text("x = 1")
    assert gather(["first"], tmp_path).digest != sources.digest
    (tmp_path / "unrelated.py").write_text("x = 1")
    assert gather(["first"], tmp_path).digest == gather(["first"], tmp_path).digest


def test_a_module_with_the_name_of_one_that_is_needed_is_refused(tmp_path: Path) -> None:
    write(tmp_path, torch="def f(input_shape, output_size): ...")
    with pytest.raises(ConfigError, match="luigi_prune itself needs a module called 'torch'"):
        registry.resolve_name("network", "torch:f", tmp_path)


def test_a_job_refuses_sources_that_changed_since_it_was_planned(tmp_path: Path) -> None:
    file = experiment_in(tmp_path)
    (tmp_path / "my_score.py").write_text(SCORE + "# found in this folder only\n")
    (experiment,) = load_experiments(file)
    resolved = experiment.experiments.methods[-1]
    assert registry.find("method", resolved).name == "MaxNet"
    (tmp_path / "my_score.py").write_text(SCORE + "# edited\n")
    table = PartTable("method", BUILTIN_METHODS)  # that of another process
    with pytest.raises(ConfigError, match="have changed since this run was planned; run again"):
        table[resolved]


def test_only_what_is_hashed_can_be_imported(tmp_path: Path) -> None:
    write(
        tmp_path,
        sly="import importlib\n\ndef f(input_shape, output_size):\n    return importlib.import_module('hid' + 'den')\n",
        hidden="",
    )
    resolved = registry.resolve_name("network", "sly:f", tmp_path)
    with pytest.raises(ModuleNotFoundError, match="hidden"):
        load_part(registry.find("network", resolved).path)((), 1)


def test_an_edit_that_bytecode_does_not_notice_is_loaded(tmp_path: Path) -> None:
    found = []
    for number in (1, 2):  # same size, same time
        main = "from quick.inner import NUMBER\n\ndef f(): ...\n"
        write(tmp_path, quick__inner=f"NUMBER = {number}\n", quick__main=main)
        for file in (tmp_path / "quick").glob("*.py"):
            os.utime(file, (1e9, 1e9))
        resolved = registry.resolve_name("loss", "quick.main:f", tmp_path)
        found.append(load_part(str(registry.find("loss", resolved).path)).__globals__["NUMBER"])
    assert found == [1, 2]
