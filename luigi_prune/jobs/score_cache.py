"""Scores of a trained network, kept beside it: in one-shot mode one computation serves all ratios, tasks and jobs.

A file of scores is a result like any other: content-addressed, checked, written once. It is no task of the graph: the
job that finds none, or a damaged one, computes the scores and leaves them for the others.
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
    """Return what `prune` asks for scores: it reads them, or computes and keeps them.

    Only scores of the trained network that read data are kept: others cost less than a file, and a later step of a
    cascade has a network of its own.
    """
    if len(spec.steps) > 1 or not METHODS[spec.method].needs_data:
        return lambda compute: compute()
    key = scores_key(spec)
    score = METHODS[spec.method].score_name.partition("@")[0]
    path = paths.scores_path(Path(request["inputs"]["network"]), score, spec.repetition, key)

    def remember(compute: Callable[[], list[Any]]) -> list[Any]:
        with contextlib.suppress(FileNotFoundError):
            try:
                found = read_result(path).group("scores").values()
                return [torch.from_numpy(array).to(context.device) for array in found]
            except DamagedResult as damage:
                log.warning("%s; set aside as %s, computed again", damage, set_aside(path).name)
        began = time.perf_counter()
        scores = compute()
        if all(isinstance(layer, Tensor) for layer in scores):
            _keep(path, key, scores, began)
        return scores

    def _keep(path: Path, key: str, scores: list[Tensor], began: float) -> None:
        arrays, types = to_arrays({f"scores/{index:04}": layer for index, layer in enumerate(scores)})
        if types:  # a type that numpy lacks: not worth a file
            return
        about = {"family": "Scores", "key": key, "output": str(path), "inputs": request["inputs"]}
        described = {
            "score": METHODS[spec.method].score_name,
            "repetition": spec.repetition,
            "rules": spec.rules,
            "ignore_layers": spec.ignore_layers,
        }
        with contextlib.suppress(OSError):  # a full or read-only disk: the scores serve this job all the same
            write(about | {"spec": json.dumps(described)}, context, began, arrays, meta={})

    return remember
