"""Scores of a trained network, cached beside it: in one-shot mode, all ratios share one computation.

The cache is a result file: content-addressed, with a checksum, written once. It is not a task of the graph: the first
job computes and writes it; a job that reads a damaged file replaces it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from luigi_prune.compute.state import to_arrays
from luigi_prune.errors import DamagedResult
from luigi_prune.execution.job import Context
from luigi_prune.identity import paths
from luigi_prune.identity.keys import scores_key
from luigi_prune.identity.spec import ChainSpec
from luigi_prune.jobs.outputs import write
from luigi_prune.registry import METHODS
from luigi_prune.results.hdf5_file import read_result, set_aside

log = logging.getLogger("luigi_prune")


def remember_scores(
    request: dict[str, Any], spec: ChainSpec, context: Context
) -> Callable[[Callable[[], list[Any]]], list[Any]]:
    """Return a function of `compute` that returns cached scores, or computes and caches them.

    Only scores that read data are cached, and only those of the trained network: other scores cost less than a file,
    and in a cascade every later step scores a different network.
    """
    if len(spec.steps) > 1 or not METHODS[spec.method].needs_data:
        return lambda compute: compute()
    key = scores_key(spec)
    score = METHODS[spec.method].score_name.partition("@")[0]
    path = paths.scores_path(Path(request["inputs"]["network"]), score, spec.repetition, key)

    def remember(compute: Callable[[], list[Any]]) -> list[Any]:
        with contextlib.suppress(FileNotFoundError):
            try:
                arrays = read_result(path).group("scores").values()
                return [torch.from_numpy(array).to(context.device) for array in arrays]
            except DamagedResult as damage:
                log.warning("%s; set aside as %s, computed again", damage, set_aside(path).name)
        began = time.perf_counter()
        scores = compute()
        if all(isinstance(layer, Tensor) for layer in scores):
            write_scores(scores, began)
        return scores

    def write_scores(scores: list[Tensor], began: float) -> None:
        arrays, types = to_arrays({f"scores/{index:04}": layer for index, layer in enumerate(scores)})
        if types:  # numpy lacks a type: not worth a file
            return
        request_of_scores = {"family": "Scores", "key": key, "output": str(path), "inputs": request["inputs"]}
        spec_of_scores = {
            "score": METHODS[spec.method].score_name,
            "repetition": spec.repetition,
            "rules": spec.rules,
            "ignore_layers": spec.ignore_layers,
            "include_layers": spec.include_layers,
        }
        with contextlib.suppress(OSError):  # full or read-only disk: this job has its scores anyway
            write(request_of_scores | {"spec": json.dumps(spec_of_scores)}, context, began, arrays, meta={})

    return remember
