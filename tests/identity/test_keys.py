"""Keys: what changes them, what must not, and pins that keep old results findable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from luigi_prune.config import schema
from luigi_prune.config.schema import Experiment
from luigi_prune.identity import keys as keys_of
from luigi_prune.identity import spec as specs
from luigi_prune.identity.spec import ChainSpec, EvaluateSpec, Step, TrainSpec

PINS = Path(__file__).parents[1] / "golden" / "keys.json"

NETWORK = {"name": "lenet300_100", "dataset": "Digits", "output_size": 10}
TRAINING = {
    "batch_size": 64,
    "test_batch_size": 64,
    "optimizer": "SGD",
    "optimizer_kwargs": {"lr": 0.1, "momentum": 0.9},
    "num_epochs": 4,
    "early_stop_epoch": 4,
    "lr_schedulers": [{"type": "MultiStepLR", "step_kwargs": {"milestones": [2]}, "kwargs": {"gamma": 0.1}}],
}


def experiment(**changes: Any) -> Experiment:
    """Return a small experiment; `changes` are "section__key": value."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "network": dict(NETWORK),
        "training": dict(TRAINING),
        "retraining": {**TRAINING, "start_epoch": 2},
        "experiments": {
            "methods": ["ReferenceNet", "FakeNet", "ThresNet"],
            "mode": "cascade",
            "num_nets": 2,
            "spacing": [{"type": "manual", "values": [0.5, 0.25, 0.125]}],
            "dataset_test": ["Digits"],
        },
    }
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            settings[section][key] = value
        else:
            settings[section] = value
    return Experiment.model_validate(settings)


def stage_keys(given_experiment: Experiment) -> dict[str, set[str]]:
    """Return all keys of an experiment by stage."""
    keys: dict[str, set[str]] = {stage: set() for stage in keys_of.ALGORITHM_VERSION}
    for base in specs.base_specs(given_experiment):
        keys["TrainBase"].add(keys_of.train_key(base))
        for method in given_experiment.experiments.methods:
            for repetition in range(given_experiment.experiments.num_repetitions):
                for chain in specs.chain_specs(given_experiment, base, method, repetition):
                    keys["Retrain"].add(keys_of.chain_key(chain))
                    keys["Prune"].add(keys_of.chain_key(chain.pruned()))
    keys["Evaluate"] = {keys_of.evaluate_key(spec) for spec in specs.evaluations(given_experiment).values()}
    keys["Aggregate"] = {keys_of.aggregate_key(given_experiment)}
    keys["Report"] = {keys_of.report_key(given_experiment)}
    return keys


def changed_stages(**changes: Any) -> set[str]:
    """Return the stages that lose a key when `changes` are made to the small experiment."""
    before, after = stage_keys(experiment()), stage_keys(experiment(**changes))
    return {stage for stage in before if not before[stage] <= after[stage]}


EVERY = {"TrainBase", "Prune", "Retrain", "Evaluate", "Aggregate", "Report"}
METRICS = [{"type": "TopK", "kwargs": {"topk": 1}}, {"type": "F1", "kwargs": {}}]


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"experiments__seed": 1}, EVERY),
        ({"network__name": "lenet5"}, EVERY),
        ({"network": {**NETWORK, "weights": "/a/net.pth@0123"}}, EVERY),
        ({"training__batch_size": 32}, EVERY),
        ({"training__test_batch_size": 32}, set()),
        ({"retraining__test_batch_size": 32}, set()),
        ({"training__optimizer_kwargs": {"lr": 0.2, "momentum": 0.9}}, EVERY),
        ({"retraining__start_epoch": 1}, {"Prune", "Retrain", "Evaluate", "Aggregate", "Report"}),
        ({"experiments__rules": "reference"}, EVERY - {"TrainBase"}),
        ({"experiments__ignore_layers": ["fc1"]}, EVERY - {"TrainBase"}),
        ({"experiments__include_layers": ["table"]}, EVERY - {"TrainBase"}),
        ({"experiments__methods": ["ReferenceNet", "FakeNet", "ThresNet", "UniNet"]}, {"Aggregate", "Report"}),
        ({"experiments__num_nets": 3}, {"Aggregate", "Report"}),
        ({"experiments__num_repetitions": 2}, {"Aggregate", "Report"}),
        ({"experiments__spacing": [{"type": "manual", "values": [0.5, 0.25, 0.125, 0.06]}]}, {"Aggregate", "Report"}),
        ({"experiments__dataset_test": ["Digits", "MNIST"]}, {"Aggregate", "Report"}),
        ({"training__metrics_test": METRICS}, {"Evaluate", "Aggregate", "Report"}),
        ({"experiments__measure_latency": True}, {"Evaluate", "Aggregate", "Report"}),
        ({"experiments__plotting": {"min_val": 0.1, "max_val": 0.9}}, {"Report"}),
        ({"network_colors": {"ThresNet": "blue"}}, {"Report"}),
        ({"network_names": {"ThresNet": "Magnitude"}}, {"Report"}),
        ({"name": "other"}, {"Report"}),
        ({"directories": {"results": "/elsewhere"}}, set()),
        ({"network_colors": {"UniNet": "blue"}}, set()),
        ({"coresets": {"delta_s": 1e-8}}, set()),  # no method here reads data
    ],
)
def test_a_change_touches_just_the_stages_whose_results_it_can_change(changes, stages):
    assert changed_stages(**changes) == stages


def test_given_weights_enter_by_their_content_and_not_by_their_place():
    def trained(**given: Any) -> set[str]:
        return stage_keys(experiment(network={**NETWORK, **given}))["TrainBase"]

    assert trained(weights="/a/net.pth@0123") == trained(weights="/b@c/other.pth@0123")
    assert trained(weights="/a/net.pth@0123").isdisjoint(trained(weights="/a/net.pth@0124"))
    assert trained(weights="/a/net.pth@0123").isdisjoint(trained(weights="/a/net.pth@0123", new_layers=["fc"]))


def test_ignored_layers_enter_keys_of_pruning_and_of_scores_in_any_order_and_only_if_there_are_any():
    def chain(ignored: list[str], method: str = "SnipNet") -> ChainSpec:
        changed = experiment(experiments__ignore_layers=ignored, experiments__methods=[method])
        return specs.chain_specs(changed, specs.base_specs(changed)[0], method, 0)[0]

    assert keys_of.scores_key(chain(["fc1"])) != keys_of.scores_key(chain([]))
    assert keys_of.chain_key(chain(["fc1", "fc2"])) == keys_of.chain_key(chain(["fc2", "fc1", "fc2"]))
    assert keys_of.chain_key(chain(["fc1"], "FakeNet")) == keys_of.chain_key(chain([], "FakeNet"))


def test_metrics_enter_training_only_where_they_stop_it_early():
    early = {"training": {**TRAINING, "early_stop_epoch": 2}}
    one = stage_keys(experiment(**early))
    first = {"training": {**TRAINING, "early_stop_epoch": 2, "metrics_test": [{"type": "F1", "kwargs": {}}]}}
    second = {"training": {**TRAINING, "early_stop_epoch": 2, "metrics_test": METRICS}}
    assert one["TrainBase"] != stage_keys(experiment(**first))["TrainBase"]
    assert one["TrainBase"] == stage_keys(experiment(**second))["TrainBase"]


@pytest.mark.parametrize(
    "changes",
    [{"early_stop_epoch": 2}, {"loss": "own:loss@0123"}, {"metrics_test": [{"type": "own:Metric@0123", "kwargs": {}}]}],
)
def test_the_test_batch_size_enters_where_validation_decides_or_foreign_code_may_depend_on_batches(changes):
    def trained(size: int) -> set[str]:
        return stage_keys(experiment(training={**TRAINING, **changes, "test_batch_size": size}))["TrainBase"]

    assert trained(64).isdisjoint(trained(32))


def test_the_rewind_epoch_enters_the_trained_network_only_where_weights_are_rewound():
    def trained(mode: str, epoch: int) -> set[str]:
        changes = {"experiments__mode": mode, "retraining__start_epoch": epoch}
        return stage_keys(experiment(**changes))["TrainBase"]

    assert trained("cascade", 1) == trained("cascade", 2) == trained("retrain", 1)
    assert trained("cascade-rewind", 1) != trained("cascade-rewind", 2)
    assert trained("cascade-rewind", 0).isdisjoint(trained("cascade", 0))


def test_first_steps_are_shared_between_one_shot_and_cascade():
    cascade, one_shot = stage_keys(experiment()), stage_keys(experiment(experiments__mode="retrain"))
    assert len(cascade["Prune"] & one_shot["Prune"]) == 4  # 2 nets x (ThresNet at 0.5, FakeNet)


def test_retraining_nothing_is_one_task_for_all_ratios_of_one_shot_mode():
    given_experiment = experiment(experiments__mode="retrain", experiments__num_nets=1)
    (base,) = specs.base_specs(given_experiment)
    chains = specs.chain_specs(given_experiment, base, "FakeNet", 0)
    assert len(chains) == 3
    assert len({keys_of.chain_key(chain) for chain in chains}) == 1


def test_prune_only_steps_form_a_chain_that_later_ratios_share():
    one_shot = experiment(experiments__mode="retrain", experiments__retrain_iterations=2, experiments__num_nets=1)
    (base,) = specs.base_specs(one_shot)
    steps = [[(s.keep_ratio, s.retrained) for s in c.steps] for c in specs.chain_specs(one_shot, base, "ThresNet", 0)]
    assert steps == [[(0.5, False), (0.25, True)], [(0.5, False), (0.125, True)]]
    cascade = experiment(experiments__retrain_iterations=2, experiments__num_nets=1)
    steps = [[(s.keep_ratio, s.retrained) for s in c.steps] for c in specs.chain_specs(cascade, base, "ThresNet", 0)]
    assert steps == [[(0.5, False), (0.25, True)], [(0.5, False), (0.25, True), (0.125, True)]]


def test_the_reference_is_evaluated_once_per_net_and_test_set():
    given_experiment = experiment(experiments__dataset_test=["Digits", "MNIST"], experiments__num_repetitions=3)
    cells = specs.evaluations(given_experiment)
    reference = {keys_of.evaluate_key(spec) for cell, spec in cells.items() if cell[-1] == 0}
    assert len(reference) == 2 * 2
    assert sum(cell[-1] == 0 for cell in cells) == 2 * 2 * 3 * 3


def test_mode_train_evaluates_the_reference_alone():
    cells = specs.evaluations(experiment(experiments__mode="train", experiments__num_repetitions=3))
    assert list(cells) == [("Digits", 0, 0, 0, 0), ("Digits", 1, 0, 0, 0)]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-1000, 1000)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    )
)
def test_keys_do_not_depend_on_the_order_of_a_dictionary_or_the_spelling_of_a_number(value):
    def turned(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {name: turned(inner[name]) for name in reversed(list(inner))}
        if isinstance(inner, list):
            return [turned(item) for item in inner]
        if isinstance(inner, int) and not isinstance(inner, bool):
            return float(inner)
        return inner

    assert keys_of.content_key("Prune", {"x": value}) == keys_of.content_key("Prune", {"x": turned(value)})


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_different_ratios_have_different_keys(left, right):
    keys = [keys_of.content_key("Prune", {"keep_ratio": ratio}) for ratio in (left, right)]
    assert (keys[0] == keys[1]) == (left == right)


def test_specs_survive_json():
    given_experiment = experiment()
    for spec in specs.evaluations(given_experiment).values():
        assert EvaluateSpec.model_validate_json(spec.as_json()) == spec


def models() -> list[type[BaseModel]]:
    """Return the models whose defaults decide what is left out of a key."""
    return [
        schema.Component,
        schema.SchedulerComponent,
        schema.NetworkConfig,
        schema.TrainingConfig,
        schema.PlottingConfig,
        TrainSpec,
        Step,
        ChainSpec,
        EvaluateSpec,
    ]


def pins() -> dict[str, Any]:
    """Return what `golden/keys.json` must hold: run this file to write it, after bumping an algorithm version."""
    pinned = {
        "small": experiment(),
        "one-shot": experiment(experiments__mode="retrain"),
        "rewind": experiment(experiments__mode="cascade-rewind"),
        "trained": experiment(experiments__mode="train"),
        "early stopping": experiment(training={**TRAINING, "early_stop_epoch": 1}),
        "reference's rules": experiment(experiments__rules="reference"),
        "another seed": experiment(experiments__seed=7),
        "prune-only steps": experiment(experiments__retrain_iterations=1),
        "repetitions": experiment(experiments__num_repetitions=2),
        "no mixed precision": experiment(training={**TRAINING, "enable_amp": False}),
        "Adam": experiment(training={**TRAINING, "optimizer": "Adam", "optimizer_kwargs": {"lr": 1e-3}}),
        "another network": experiment(network={"name": "resnet20", "dataset": "CIFAR10", "output_size": 10}),
    }
    defaults = {
        model.__name__: {
            name: keys_of.canonical(field.get_default())
            for name, field in model.model_fields.items()
            if not field.is_required()
        }
        for model in models()
    }
    keys = {
        name: {stage: f"{len(keys)}: {min(keys, default='')}" for stage, keys in stage_keys(one).items()}
        for name, one in pinned.items()
    }
    return {"versions": keys_of.ALGORITHM_VERSION, "defaults": defaults, "keys": keys}


def test_keys_and_defaults_are_those_of_earlier_versions():
    """Fails when a default or a key changed: bump that stage's ALGORITHM_VERSION, then run this file to pin anew."""
    assert json.loads(json.dumps(pins())) == json.loads(PINS.read_text())


if __name__ == "__main__":
    PINS.write_text(json.dumps(pins(), indent=1, sort_keys=True) + "\n")
