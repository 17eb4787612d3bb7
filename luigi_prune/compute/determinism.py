"""Deterministic algorithms, with which two runs on the same kind of GPU are equal bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS is deterministic only if it is set


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Use only deterministic algorithms inside the block; an operation without one raises RuntimeError."""
    os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")  # cuBLAS reads it on first use
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
