"""The process of one step: `python -m benchmarks.gpu.step MODULE:FUNCTION FACTS_FILE DEVICE THREADS SECONDS`."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from benchmarks.gpu.facts import Facts, one_line


def main() -> None:
    """Run a step and append each of its facts, as a line of JSON, to a file."""
    path, destination, device_name, threads, seconds = sys.argv[1:]
    with open(destination, "a", encoding="utf-8") as file:

        def write(fact: dict[str, Any]) -> None:
            file.write(json.dumps(fact) + "\n")
            file.flush()

        facts = Facts(float(seconds), write)
        # A step's own failures are facts; this one means that the step itself could not go on.
        with facts.attempt("the step itself"):
            import torch

            torch.set_num_threads(int(threads))
            module, _, function = path.partition(":")
            getattr(importlib.import_module(module), function)(facts, torch.device(device_name))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # leaving CUDA and NCCL in good order can hang, and proves nothing


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        print(one_line(error), file=sys.stderr)
        raise
