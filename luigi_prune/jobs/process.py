"""Threads and GPU of the process that runs a job."""

from __future__ import annotations

import torch

from luigi_prune.execution.job import Context


def prepare_process(context: Context) -> None:
    """Set this process's threads and GPU, and reset the GPU's peak memory statistics."""
    torch.set_num_threads(context.threads)
    if context.device.startswith("cuda"):
        torch.cuda.set_device(context.device)
        torch.cuda.init()  # without it there are no statistics to reset
        torch.cuda.reset_peak_memory_stats(context.device)


def peak_gpu_bytes(context: Context) -> int:
    """Return the peak memory of this process's tensors on its GPU since `prepare_process`, in bytes."""
    return int(torch.cuda.max_memory_allocated(context.device))
