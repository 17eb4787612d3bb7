"""What a job sets in its process before it computes: threads, the GPU, deterministic algorithms."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from luigi_prune.backends.job import Context

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without it cuBLAS is not deterministic


def prepare_process(context: Context) -> None:
    """Use the job's threads and GPU from now on, and count the GPU's peak memory anew."""
    torch.set_num_threads(context.threads)
    if context.device.startswith("cuda"):
        torch.cuda.set_device(context.device)
        torch.cuda.init()  # the statistics are there only then
        torch.cuda.reset_peak_memory_stats(context.device)


def peak_gpu_bytes(context: Context) -> int:
    """Return how much memory the tensors of this process held at most on its GPU since `prepare_process`."""
    return int(torch.cuda.max_memory_allocated(context.device))


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Use deterministic algorithms only, inside the block; an operation that has none raises RuntimeError."""
    os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")  # cuBLAS reads it when it is first used
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
