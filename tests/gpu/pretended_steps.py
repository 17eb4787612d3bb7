"""Steps for the tests of the driver: some are well-behaved."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import torch

from benchmarks.gpu.facts import Facts


def fine(facts: Facts, device: torch.device) -> None:
    facts.check("one is one", True, device.type, seen=1)
    facts.measure("a number", 3)


def wrong(facts: Facts, device: torch.device) -> None:
    with facts.attempt("a division"):
        facts.check("one by zero", True, 1 / 0)
    facts.check("what comes after it", True, "is there")


def crashes(facts: Facts, device: torch.device) -> None:
    facts.check("before the crash", True, "is kept")
    print("about to abort", flush=True)
    os.abort()


def hangs(facts: Facts, device: torch.device) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    facts.check("before it hangs", True, child.pid, pid=child.pid)
    time.sleep(600)


def silent(facts: Facts, device: torch.device) -> None:
    pass
