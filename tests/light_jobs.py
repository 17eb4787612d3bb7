"""Job functions without torch, for runs in which only what happens to jobs matters: imports are most of a small run.

A training is 40 epochs of a sum in which each step depends on the one before: one that is lost, or done twice, changes
the result. It saves after every epoch, and when asked to stop.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from luigi_prune.errors import Interrupted
from luigi_prune.execution.job import Context
from luigi_prune.identity.paths import checkpoint_path
from luigi_prune.results.hdf5_file import read_result, write_result

EPOCHS = 40
logger = logging.getLogger("luigi_prune.light_jobs")


def train(request: dict[str, Any], context: Context) -> None:
    """Train for 40 epochs or as many as the file `epochs` says, each of which lasts as long as the file `pace` says.

    No epoch begins while there is a file `hold`. These files, and `broken`, whose text is raised as an error, are in
    the working directory.
    """
    if Path("broken").exists():
        raise ValueError(Path("broken").read_text())
    if Path("hungry").exists():
        _waste = bytearray(int(Path("hungry").read_text()))
        time.sleep(600)
    checkpoint = checkpoint_path(request["output"])
    saved = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"epoch": 0, "weights": [0.5] * 8}
    weights, pace = np.array(saved["weights"]), float(Path("pace").read_text()) if Path("pace").exists() else 0.0
    epochs = int(Path("epochs").read_text()) if Path("epochs").exists() else EPOCHS
    matrix = np.random.default_rng(int(request["key"][:12], 16)).normal(size=(8, 8))
    for epoch in range(saved["epoch"] + 1, epochs + 1):
        while Path("hold").exists():
            time.sleep(0.05)
        time.sleep(pace)
        weights = np.tanh(matrix @ weights + epoch)
        logger.info("epoch %d/%d", epoch, epochs)
        context.progress(epoch / epochs, f"epoch {epoch}/{epochs}")
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.with_suffix(".part").write_text(json.dumps({"epoch": epoch, "weights": weights.tolist()}))
        checkpoint.with_suffix(".part").rename(checkpoint)
        if context.should_stop():
            raise Interrupted(f"saved at the end of epoch {epoch}")
    _write(request, context, {"weights": weights})
    checkpoint.unlink(missing_ok=True)


def combine(request: dict[str, Any], context: Context) -> None:
    """Write the sines of all inputs."""
    inputs = {**request.get("inputs", {}), **request.get("cells", {})}
    groups = {name: read_result(path).arrays for name, path in sorted(inputs.items()) if path.endswith(".h5")}
    arrays = {f"{name}/{key}": np.sin(array) for name, group in groups.items() for key, array in group.items()}
    _write(request, context, {f"of{number}": array for number, array in enumerate(arrays.values())})


def report(request: dict[str, Any], context: Context) -> None:
    """Write a page."""
    Path(request["output"]).parent.mkdir(parents=True, exist_ok=True)
    Path(request["output"]).write_text("<html>")


def _write(request: dict[str, Any], context: Context, arrays: dict[str, np.ndarray]) -> None:
    about: dict[str, Any] = {"family": request["family"], "key": request["key"], "spec": json.loads(request["spec"])}
    write_result(
        request["output"],
        arrays=arrays,
        provenance={"job": context.job_id, "together": list(context.together)},
        **about,
    )
