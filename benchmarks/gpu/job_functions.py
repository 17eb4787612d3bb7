"""Job functions for `backends.py`: they say where they run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from luigi_prune.execution.job import Context


def where(request: dict[str, Any], context: Context) -> None:
    """Compute something on the job's device, wait a little, and write where that was."""
    import torch

    began = time.time()
    device = torch.device(context.device)
    value = float(torch.ones(1000, device=device).sum())
    on_gpu = device.type == "cuda"
    found = {
        "device": context.device,
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "name": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "count": torch.cuda.device_count() if on_gpu else 0,
        "sum": value,
        "pid": os.getpid(),
        "gpus": context.gpus,
    }
    time.sleep(0.5)
    found["began"], found["ended"] = began, time.time()
    Path(request["output"]).write_text(json.dumps(found))
