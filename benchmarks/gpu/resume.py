"""A training that is killed and resumed ends in the bits of one that was not, under deterministic algorithms."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.gpu.digits import differences, settings, train_digits
from benchmarks.gpu.driver import ROOT
from benchmarks.gpu.facts import Facts
from luigi_prune.compute.training import Interrupted, TrainResult

WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order; read once


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Let torch use deterministic algorithms only; it raises for an operation that has none."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def killed_and_resumed(device: torch.device, folder: Path) -> TrainResult:
    """Return a training whose first process is killed in its third epoch; this process goes on from its checkpoint."""
    checkpoint = folder / "checkpoint"
    arguments = ["-m", "benchmarks.gpu.digits", str(device), "deterministic", str(checkpoint)]
    child = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        for line in child.stdout:
            if line.split() == ["epoch", "1"]:
                break
    finally:
        child.kill()
        child.wait()
    if not checkpoint.exists():
        raise RuntimeError("the process that was to be killed wrote no checkpoint")
    return train_digits(settings(), device, checkpoint=checkpoint)


def stopped_and_resumed(device: torch.device, folder: Path) -> TrainResult:
    """Return a training that is asked to stop in the middle of its second epoch, and goes on."""
    calls = iter(range(10**6))
    checkpoint = folder / "checkpoint"
    try:
        train_digits(settings(), device, checkpoint=checkpoint, should_stop=lambda: next(calls) >= 30)
    except Interrupted:
        return train_digits(settings(), device, checkpoint=checkpoint)
    raise RuntimeError("the training that was asked to stop did not")


def compare(facts: Facts, name: str, first: TrainResult, second: TrainResult, demanded: bool) -> None:
    """Report whether two results are the same bits; without `demanded`, what differs."""
    names, largest = differences(first, second)
    shown = f"{', '.join(names[:2])}{' and more' if len(names) > 2 else ''}"
    value = "the same bits" if not names else f"{len(names)} differ by up to {largest:.1e}: {shown}"
    if demanded:
        facts.check(name, not names, value, differing=len(names), largest=largest)
    else:
        facts.measure(name, value, differing=len(names), largest=largest)


def run(facts: Facts, device: torch.device) -> None:
    """Kill and stop a training under deterministic algorithms; then look what happens without them."""
    os.environ.setdefault(*WORKSPACE)
    undisturbed: TrainResult | None = None
    with facts.attempt("deterministic algorithms"), deterministic_algorithms():
        undisturbed = train_digits(settings(), device)
        for name, again in (
            ("deterministic: twice", lambda folder: train_digits(settings(), device)),
            ("deterministic: killed and resumed", lambda folder: killed_and_resumed(device, folder)),
            ("deterministic: stopped and resumed", lambda folder: stopped_and_resumed(device, folder)),
        ):
            with facts.attempt(name), tempfile.TemporaryDirectory() as folder:
                compare(facts, name, undisturbed, again(Path(folder)), demanded=True)
    # On a CPU the same bits are promised without the setting, too.
    promised = device.type == "cpu"
    with facts.attempt("not deterministic"), tempfile.TemporaryDirectory() as folder:
        first = train_digits(settings(), device)
        compare(facts, "not deterministic: twice", first, train_digits(settings(), device), promised)
        resumed = stopped_and_resumed(device, Path(folder))
        compare(facts, "not deterministic: stopped and resumed", first, resumed, promised)
        if undisturbed is not None:
            compare(facts, "with and without deterministic algorithms", undisturbed, first, False)
