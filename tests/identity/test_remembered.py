"""Texts and keys put together from remembered parts are those of the whole."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.identity import keys
from luigi_prune.identity.remembered import per_object
from luigi_prune.identity.spec import ChainSpec, EvaluateSpec, Spec, evaluations
from luigi_prune.workflow.job_task import JobTask, walk
from luigi_prune.workflow.settings import directories_for
from luigi_prune.workflow.tasks import Report
from tests.experiments import write_experiment

SPACING = [{"type": "manual", "values": [0.8, 0.5, 0.25, 0.1]}]
VARIANTS: dict[str, dict[str, Any]] = {
    "cascade": {"experiments__mode": "cascade", "experiments__retrainIterations": 2},
    "retrain": {"experiments__mode": "retrain", "experiments__retrainIterations": 2},
    "cascade-rewind": {"experiments__mode": "cascade-rewind"},
    "reference": {"experiments__rules": "reference", "coresets__deltaS": 0.5},
    "train": {"experiments__mode": "train"},
}


def specs(folder: Path, changes: dict[str, Any]) -> list[EvaluateSpec]:
    file = write_experiment(folder, experiments__methods=["ThresNet", "SiPPNet"], experiments__spacing=SPACING,
                            experiments__numNets=2, **changes)  # fmt: skip
    (experiment,) = load_experiments(str(file))
    return list(evaluations(experiment).values())


def plain_json(spec: Spec) -> str:
    return json.dumps(spec.model_dump(mode="json", by_alias=False), sort_keys=True, separators=(",", ":"))


def forget() -> None:
    keys._first_steps.cache_clear()


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_json_and_keys_do_not_depend_on_what_is_remembered(tmp_path, changes):
    found = specs(tmp_path, changes)
    together = {keys.evaluate_key(spec): spec.as_json() for spec in found}
    for key, text in reversed(together.items()):  # read anew, each on its own
        forget()
        spec = EvaluateSpec.model_validate_json(text)
        assert keys.evaluate_key(spec) == key
        assert spec.as_json() == text == plain_json(spec)
    chains = [spec.chain for spec in found if spec.chain]
    for chain in chains:
        for part in (chain, chain.pruned(), chain.before()):
            if part is not None:
                assert part.as_json() == plain_json(part)
                key = keys.chain_key(part)
                forget()
                assert keys.chain_key(ChainSpec.model_validate_json(part.as_json())) == key


def test_a_task_of_the_graph_equals_the_one_that_another_process_makes_from_its_parameters(tmp_path):
    file = write_experiment(tmp_path, experiments__methods=["ThresNet"], experiments__spacing=SPACING)
    (experiment,) = load_experiments(str(file))
    tasks: list[Any] = list(walk(Report.of(experiment, directories_for(experiment))))
    assert len(tasks) > 10
    for task in tasks:
        assert isinstance(task, JobTask)
        other = object.__new__(type(task))  # not from Luigi's cache
        other.__init__(**task.param_kwargs)
        assert "content" not in other.__dict__
        assert other.content == task.content
        assert (other.task_id, other.path, other.title) == (task.task_id, task.path, task.title)
        assert other.requires() == task.requires()
        assert type(task).from_str_params(task.to_str_params()) is task


def test_objects_are_told_apart_by_identity_and_not_held_for_ever():
    class Thing:
        pass

    @per_object
    def number(thing: Thing) -> float:
        calls.append(thing)
        return len(calls)

    calls: list[Any] = []
    first, second = Thing(), Thing()
    assert [number(first), number(second), number(first)] == [1, 2, 1]
    gone = weakref.ref(first)
    del first
    calls.clear()
    for _ in range(5000):
        number(Thing())
    calls.clear()
    gc.collect()
    assert gone() is None
