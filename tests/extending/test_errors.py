"""What cannot be used is refused in one line, with file, line and key, before any job starts; and in jobs by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from luigi_prune import api
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.errors import ConfigError
from luigi_prune.registry import MethodRow
from tests.experiments import write_experiment

PARTS = """
from luigi_prune.registry import MethodRow, NetworkRow, MetricRow

def net(input_shape, output_size, width, depth=2): ...
def number(outputs, targets): ...
def score(problem): ...
class Decay:
    def __init__(self, params, lr): ...

ROW = MethodRow(name="RowNet", score=score)
ODD = MethodRow(name="OddNet", granularity="neuron", score=score)
LOST = MethodRow(name="LostNet", score="magnitud")
TYPO = MethodRow(name="TypoNet", scor=score)
SAME = MethodRow(name="SameNet", label="RowNet", score=score)
LIKE = MethodRow(name="LikeNet", label=" WT ", score=score)
RED = MethodRow(name="RedNet", color="redd", score=score)
"""


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        (
            {"network__name": "fault:net"},
            "network.name",
            "there is no module 'fault' beside the experiment file",
        ),
        ({"network__name": "fault:net"}, "network.name", "did you mean 'faulty'?"),
        (
            {"network__name": "faulty:nett"},
            "network.name",
            "faulty.py defines no 'nett'; did you mean 'net'?",
        ),
        ({"network__name": "faulty.sub:net"}, "network.name", "there is no module 'faulty.sub'"),
        ({"network__name": "faulty:"}, "network.name", "is not an import path: expected module:attribute"),
        ({"network__name": "broken:net"}, "network.name", "broken.py:2: is not valid Python"),
        ({"network__name": "faulty:net"}, "network.kwargs", "net needs the keyword 'width'"),
        (
            {"network__name": "faulty:net", "network__kwargs": {"width": 3, "widt": 3}},
            "network.kwargs.widt",
            "net has no keyword 'widt'; did you mean 'width'?",
        ),
        ({"network__kwargs": {"width": 3}}, "network.kwargs.width", "lenet300_100 has no keyword 'width'"),
        ({"network__name": "faulty:ROW"}, "network.name", "'faulty:ROW' is a MethodRow, not a NetworkRow"),
        ({"experiments__methods": ["faulty:score"]}, "experiments.methods[0]", "is a function, not a MethodRow"),
        ({"experiments__methods": ["faulty:ODD"]}, "experiments.methods[0]", "unknown granularity 'neuron'"),
        ({"experiments__methods": ["faulty:LOST"]}, "experiments.methods[0]", "did you mean 'magnitude'?"),
        (
            {"experiments__methods": ["faulty:TYPO"]},
            "experiments.methods[0]",
            "unexpected keyword argument 'scor'",
        ),
        ({"experiments__methods": ["raises:ROW"]}, "experiments.methods[0]", "ValueError: out of order"),
        ({"experiments__methods": ["faulty:ROW", "faulty:ROW"]}, "experiments.methods[1]", "appears twice"),
        (
            {"experiments__methods": ["faulty:ROW", "faulty:SAME"]},
            "experiments.methods[1]",
            "the label 'RowNet' of faulty:SAME is also that of faulty:ROW",
        ),
        (
            {"experiments__methods": ["faulty:LIKE", "WT"]},
            "experiments.methods[1]",
            "the label 'WT' of ThresNet is also that of faulty:LIKE",
        ),
        (
            {"experiments__methods": ["faulty:ROW", "WT"], "network_names": {"RowNet": "WT"}},
            "network_names.RowNet",
            "the label 'WT' of faulty:ROW is also that of ThresNet",
        ),
        (
            {"experiments__methods": ["faulty:ROW"], "network_names": {"faulty:ROW": "a", "RowNet": "b"}},
            "network_names.",
            "is the method faulty:ROW, as is ",
        ),
        (
            {"experiments__methods": ["faulty:RED"]},
            "experiments.methods[0]",
            "'faulty:RED': 'redd' is not a colour; did you mean 'red'?",
        ),
        ({"training__optimizer": "faulty:net"}, "training.optimizer", "is a function: expected a class"),
        ({"training__optimizer": "faulty:Decay"}, "training.optimizerKwargs", "Decay has no keyword 'momentum'"),
        (
            {"training__metricsTest": [{"type": "faulty:number"}]},
            "training.metricsTest[0].type",
            "expected a MetricRow, which sets higher_is_better",
        ),
        ({"experiments__dataset_test": ["faulty:nothing"]}, "experiments.datasetTest[0]", "defines no 'nothing'"),
    ],
)
def test_a_file_is_refused_in_one_line(changes: dict[str, object], key: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(PARTS)
    (tmp_path / "broken.py").write_text("\ndef net(:\n")
    (tmp_path / "raises.py").write_text("raise ValueError('out of order\\nsecond line')\nROW = make()\n")
    file = write_experiment(tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        load_experiments(file)
    text = str(error.value)
    assert words in text
    assert key in text
    assert "\n" not in text
    place = text.split(": ")[0]
    assert place.startswith(str(file) + ":")
    assert int(place.rsplit(":", 1)[1]) > 0
    assert "faulty" not in sys.modules


# ------------------------------------------------------------------------------------------ what a score gives back


def small() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)), torch.randn(4, 6)


def weights(problem):
    return [layer.weight for layer in problem.layers]


def disturbing(problem):
    problem.network[0].weight.data.add_(1.0)
    return [layer.weight.flatten(1).norm(dim=1) for layer in problem.layers]


def hooking(problem):
    problem.network[0].register_forward_hook(lambda *call: None)
    return [layer.weight.flatten(1).norm(dim=1) for layer in problem.layers]


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (weights, "weights: the score of layer '0' has shape (20, 6), expected (20,): a number per filter"),
        (lambda p: [torch.ones(20)], "its score returned 1 entries, expected 2 tensors, one per layer"),
        (lambda p: torch.ones(20), "its score returned a Tensor, expected 2 tensors"),
        (lambda p: [[1.0] * 20, torch.ones(3)], "the score of layer '0' is a list, expected a tensor of shape (20,)"),
        (lambda p: [torch.ones(20), torch.ones(3).int()], "the score of layer '2' is of type torch.int32"),
        (lambda p: [torch.full((20,), torch.inf), torch.ones(3)], "the score of layer '0' holds NaN or infinite"),
        (disturbing, "disturbing: its score changed the network (0.weight); work on a copy"),
        (hooking, "hooking: its score changed the network (the hooks of 0)"),
        (lambda p: [len(p.batches)], "reads problem.batches, but its row does not declare needs_data=True"),
        (lambda p: [x for x, _ in p.batches], "reads problem.batches, but its row does not declare needs_data=True"),
    ],
)
def test_what_a_score_may_not_do(score, words: str) -> None:
    network, example = small()
    before = [parameter.clone() for parameter in network.parameters()]
    with pytest.raises(ConfigError) as error:
        api.prune(network, score=score, keep_ratio=0.5, example_input=example)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert all(map(torch.equal, before, network.parameters()))


def test_calibration_lends_batches_to_a_bare_score_and_to_rows_that_ask() -> None:
    network, example = small()
    batches = [(example, torch.tensor([0, 1, 2, 0]))]
    seen = []

    def looking(problem):
        seen.append(len(problem.batches))
        return [layer.weight.norm(dim=1) for layer in problem.layers]

    more = {"keep_ratio": 0.5, "calibration": batches, "loss": nn.functional.cross_entropy}
    api.prune(network, score=looking, **more)
    assert seen == [1]
    with pytest.raises(ConfigError, match="needs_data=True"):
        api.prune(network, MethodRow("Looking", score=looking), **more)


def test_a_method_or_a_score_is_given() -> None:
    network, example = small()
    for given in ({}, {"method": "WT", "score": weights}):
        with pytest.raises(ConfigError, match="either a method or a score"):
            api.prune(network, keep_ratio=0.5, example_input=example, **given)
