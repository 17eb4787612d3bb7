"""Every method from the file to the tables, in cascade and another mode, two steps each; rewound decomposed layers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from luigi_prune import registry
from luigi_prune.compute.pruning.low_rank.foldings import fold, recompose
from luigi_prune.config.schema import Mode
from luigi_prune.registry.method_rows import BUILTIN_METHODS
from luigi_prune.results.hdf5_file import Result, read_result
from tests.experiments import run_to_tables, write_experiment

TINY_NETWORK = """
from torch import nn


def tiny(input_shape, output_size):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 2), nn.ReLU(), nn.Flatten(), nn.Linear(32, output_size),
    )
"""
RATIOS = (0.7, 0.4)


def write(folder: Path, **changes: Any) -> Path:
    (folder / "tiny_network.py").write_text(TINY_NETWORK)
    return write_experiment(
        folder,
        network={"name": "tiny_network:tiny", "dataset": "Digits", "outputSize": 10},
        training__batchSize=512,
        experiments__spacing=[{"type": "manual", "values": list(RATIOS)}],
        **changes,
    )


def result(folder: Path, pattern: str) -> Result:
    (path,) = (folder / "results").rglob(pattern)
    return read_result(path)


@pytest.mark.slow
@pytest.mark.parametrize("mode", get_args(Mode))
def test_every_method_goes_all_the_way(tmp_path: Path, mode: str) -> None:
    fresh = ("ScratchNet", "ScratchFilterNet") if mode == "cascade-rewind" else ()  # there is nothing to rewind to
    methods = [name for name in BUILTIN_METHODS if name not in ("ReferenceNet", *fresh)]
    if mode in ("retrain", "cascade-rewind"):  # which share all but the order of tasks with cascade: every second one
        methods = methods[mode == "retrain" :: 2]
    file = write(tmp_path, experiments__mode=mode, experiments__methods=methods)
    ran = run_to_tables(file)
    retrained = [title for title in ran if title.startswith("Retrain ")]
    if mode == "train":
        assert retrained == []
        return
    for method in methods:
        if registry.METHODS[method].granularity == "none":
            continue
        assert sum(f" {method} " in title for title in retrained) == len(RATIOS), method
        for ratio in RATIOS:
            name = f"{method}/net0-rep0/keep{ratio}"
            pruned, after = (result(tmp_path, f"{name}-{stage}-*.h5") for stage in ("prune", "retrain"))
            assert [_choice(entry) for entry in after.meta["structure"]] == [
                _choice(entry) for entry in pruned.meta["structure"]
            ]
            assert int(after.arrays["size"]) == pytest.approx(int(pruned.arrays["size"]), rel=0.02), (method, ratio)
            for parameter, mask in after.group("masks").items():
                assert not after.group("weights")[parameter][~mask].any()


def _choice(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[key] for key in ("layer", "rank", "groups", "folding"))


def test_rewound_factors_are_those_of_the_early_weights(tmp_path: Path) -> None:
    """Without an epoch of retraining: the best approximation of the early weights at the ranks of the pruned ones."""
    methods = ["SVDNet", "ALDSNetSimple", "LearnedRankNet", "MessiNet", "PCANet", "ALDSNetOne"]
    schedule = {"startEpoch": 1, "numEpochs": 1}
    run_to_tables(
        write(tmp_path, experiments__mode="cascade-rewind", experiments__methods=methods, retraining=schedule)
    )
    early = result(tmp_path, "TrainBase/net0-*.h5").group("rewind")
    for method, ratio in itertools.product(methods, RATIOS):
        name = f"{method}/net0-rep0/keep{ratio}"
        pruned, after = (result(tmp_path, f"{name}-{stage}-*.h5") for stage in ("prune", "retrain"))
        weights, replaced = after.group("weights"), {entry["layer"]: entry for entry in after.meta["structure"]}
        assert replaced
        assert [_choice(entry) for entry in pruned.meta["structure"]] == [_choice(e) for e in replaced.values()]
        for key, value in early.items():
            layer, _, kind = key.rpartition(".")
            if layer not in replaced:
                np.testing.assert_array_equal(weights[key], value)
            elif kind == "weight" and method != "PCANet":
                parts = [torch.from_numpy(weights[f"{layer}.{part}.weight"]) for part in ("encode", "decode")]
                exact = method in ("SVDNet", "LearnedRankNet")
                check_error(torch.from_numpy(value), replaced[layer], *parts, exact=exact)


def check_error(early: Tensor, entry: dict[str, Any], encode: Tensor, decode: Tensor, *, exact: bool) -> None:
    """Compare the error of a layer's factors with its record and, if `exact`, with the best at that rank."""
    if early.dim() == 2:
        early, product = early[:, :, None, None], (decode @ encode)[:, :, None, None]
    else:
        product = recompose(encode, decode, entry["groups"])
    matrices = [fold(each, entry["folding"]) for each in (early, early - product)]
    norm, error = (float(torch.linalg.matrix_norm(matrix, 2)) for matrix in matrices)
    relative = error / norm
    assert relative == pytest.approx(entry["error_operator"], rel=1e-3, abs=1e-5)
    if exact:
        values = torch.linalg.svdvals(matrices[0])
        assert relative == pytest.approx(float(values[entry["rank"]] / values[0]), rel=1e-3)
