"""The number formats that pruning computes in: those of the network, whatever the caller's settings are.

TF32, which GPUs use for convolutions by default, keeps three digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disable TF32 on a GPU inside the block, so that scores and checks of outputs are as exact as on a CPU."""
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.callback(_disable_tf32())
        yield


@contextmanager
def own_types(device: torch.device) -> Iterator[None]:
    """Disable autocast and the caller's default type and device inside the block: results do not depend on them."""
    with ExitStack() as stack:
        for kind in sorted({"cpu", device.type}):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if (default := torch.get_default_dtype()) != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, default)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def _disable_tf32() -> Callable[[], None]:
    """Disable TF32 and return a function that restores the settings."""
    cudnn: Any = torch.backends.cudnn
    try:
        products, convolutions = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    except RuntimeError:  # set by the newer names, which torch does not allow to be mixed with the older ones
        parts = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
        before = [part.fp32_precision for part in parts]
        _set_all(parts, ["ieee"] * len(parts))
        return lambda: _set_all(parts, before)
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False

    def restore() -> None:
        torch.set_float32_matmul_precision(products)
        cudnn.allow_tf32 = convolutions

    return restore


def _set_all(parts: tuple[Any, ...], values: list[str]) -> None:
    for part, value in zip(parts, values, strict=True):
        part.fp32_precision = value
