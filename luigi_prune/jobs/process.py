"""What a job sets in its process before it computes: threads, the GPU."""

from __future__ import annotations

import torch

from luigi_prune.execution.job import Context


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
