"""Which trainings can run in lockstep: those of an equal schedule, as their specs show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

TOGETHER = ("TrainBase", "Retrain")  # the families whose tasks can run together, each with tasks of its own
_DATA = ("training_data", "local_data", "modules")  # of the directories: where the samples and the code come from


def common_schedule(request: Mapping[str, Any]) -> str:
    """Return a text that is equal for the tasks that one job can train together; "" for a task that trains alone.

    Equal are the network's architecture, the data set and every setting of the training: epochs, start epoch,
    optimizer, schedulers, transforms, loss, metrics. Masks, seeds, methods, keep ratios and repetitions may differ.
    `request` is that of a job function.
    """
    family = request.get("family", "")
    if family not in TOGETHER or not (text := request.get("spec")):
        return ""
    spec = json.loads(text)
    base = spec if family == "TrainBase" else spec["base"]
    training = spec["training"] if family == "TrainBase" else spec["retraining"]
    directories = json.loads(request.get("directories") or "{}")
    shared = {
        "family": family,
        "network": base["network"],
        "training": training,
        "metrics": base["training"]["metrics_test"],  # of a retraining, too
        "rewind_epoch": spec.get("rewind_epoch"),
        "data": {name: directories.get(name) for name in _DATA},
    }
    return json.dumps(shared, sort_keys=True)
