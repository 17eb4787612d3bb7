"""A process group of one process: what a training on several GPUs sends goes through NCCL."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from benchmarks.gpu.digits import differences, settings, train_digits
from benchmarks.gpu.facts import Facts
from benchmarks.gpu.resume import WORKSPACE, deterministic_algorithms
from benchmarks.gpu.subjects import conv_net
from luigi_prune.compute.distributed import ProcessGroup, Ranks, close_group, open_group, synchronise_batchnorm


def messages(ranks: Ranks, device: torch.device) -> dict[str, bool]:
    """Return per kind of message whether it arrived as it was sent."""
    tensors = [torch.arange(4.0, device=device), torch.tensor(3, device=device), torch.ones(1, 2, device=device)]
    summed, spread = [tensor.clone() for tensor in tensors], [tensor.clone() for tensor in tensors]
    ranks.sum_(summed)
    ranks.spread_(spread)
    rows = torch.arange(6.0, device=device).view(3, 2)
    return {
        "sums": all(map(torch.equal, summed, tensors)),
        "spread tensors": all(map(torch.equal, spread, tensors)),
        "spread bytes": ranks.spread_bytes(b"checkpoint") == b"checkpoint",
        "votes": ranks.any(True, device) and not ranks.any(False, device),
        "rows below each other": torch.equal(ranks.concatenate(rows), rows),
    }


def synchronised_batchnorm(ranks: Ranks, device: torch.device) -> tuple[int, float]:
    """Return how many layers became SyncBatchNorm, and by how much a training pass then differs."""
    plain = conv_net().to(device).train()
    converted = synchronise_batchnorm(conv_net().to(device).train(), ranks, device)
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    first, second = plain(x), converted(x)
    second.sum().backward()
    count = sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules())
    return count, float((first - second).abs().max())


def run(facts: Facts, device: torch.device) -> None:
    """Open the group and send every kind of message; train with it, then as if there were a second process."""
    os.environ.setdefault(*WORKSPACE)
    os.environ.setdefault("NCCL_DEBUG", "WARN")  # into the step's log, which the record keeps if the step fails
    with tempfile.TemporaryDirectory() as folder:
        with facts.attempt("a group of one process"):
            group = open_group(0, 1, f"file://{Path(folder) / 'meeting'}", device)
            kind = torch.distributed.get_backend(group)
            expected = "nccl" if device.type == "cuda" else "gloo"
            facts.check("a group of one process", kind == expected and Ranks.of(group) == Ranks(group, 0, 1), kind)
        if not torch.distributed.is_initialized():
            return
        try:
            _in_group(facts, group, device)
        finally:
            close_group()


def _in_group(facts: Facts, group: ProcessGroup, device: torch.device) -> None:
    # `Ranks` sends nothing when it is alone. Told that there are two, it sends everything to the one that there is.
    pretended = Ranks(group, 0, 2)
    with facts.attempt("messages"):
        arrived = messages(pretended, device)
        wrong = [name for name, right in arrived.items() if not right]
        facts.check("messages", not wrong, f"wrong: {', '.join(wrong)}" if wrong else ", ".join(arrived))
    with facts.attempt("SyncBatchNorm"):
        count, difference = synchronised_batchnorm(pretended, device)
        passed = count == (3 if device.type == "cuda" else 0) and difference < 1e-4
        facts.check("SyncBatchNorm", passed, f"{count} of 3 layers, outputs differ by {difference:.1e}")
    training = settings(num_epochs=2)
    with facts.attempt("a training in the group"), deterministic_algorithms():
        alone, grouped = train_digits(training, device), train_digits(training, device, process_group=group)
        names, largest = differences(alone, grouped)
        facts.check("a training in the group", not names, f"differs from one without by {largest:.1e}")
    with facts.attempt("a training that sends"), mock.patch.object(Ranks, "of", return_value=pretended):
        found = train_digits(training, device, process_group=group)
        fine = all(bool(torch.isfinite(tensor).all()) for tensor in found.state.values())
        losses = found.history["train_loss"]
        facts.check(
            "a training that sends", fine and losses[-1] < losses[0], f"loss {losses[0]:.3f} -> {losses[-1]:.3f}"
        )
