"""What every network by name must allow: a step of training, pruning by three kinds of methods, saving and loading.

`python -m tests.api.network_contract NAME ...` checks networks too large for the tests, on small images.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from luigi_prune import api, registry
from luigi_prune.compute.metrics.losses import Loss
from luigi_prune.compute.network_inputs import call, prediction, tensors_in

METHODS = ("ThresNet", "FilterThresNet", "SVDNet")  # one weight, one filter and one low-rank method
CLASSES = 4
_TOKENS = 12


def inputs_for(name: str, pixels: int | None = None) -> tuple[Any, Any]:
    """Return the shape of one sample, and two samples: tokens for transformers, images for all others."""
    generator = torch.Generator().manual_seed(0)
    if registry.find("network", name).several_inputs and pixels is None:
        ids = torch.randint(0, 20, (2, _TOKENS), generator=generator)
        return (_TOKENS,), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    edge = pixels or max(32, registry.find("network", name).smallest)
    return (3, edge, edge), torch.randn(2, 3, edge, edge, generator=generator)


def check(name: str, pixels: int | None = None, methods: tuple[str, ...] = METHODS, **kwargs: Any) -> None:
    """Assert that the network `name` keeps the contract; `kwargs` are keywords of the network."""
    shape, x = inputs_for(name, pixels)
    network = api.network(name, shape, CLASSES, seed=1, **kwargs)
    check_step(network, x)
    for method in methods:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a ratio that a tiny network cannot meet
            pruned = api.prune(network, method, 0.6, example_input=x)
        assert pruned.size < pruned.original_size, method
        assert sum(layer.kept for layer in pruned.layers) < sum(layer.total for layer in pruned.layers), method
        expected = outputs(pruned.network, x)
        assert all(tensor.isfinite().all() for tensor in expected), method
        with TemporaryDirectory() as folder:
            pruned.save(Path(folder) / "pruned.h5")
            loaded = api.load(Path(folder) / "pruned.h5", api.network(name, shape, CLASSES, seed=2, **kwargs))
        assert loaded.size == pruned.size, method
        for before, after in zip(expected, outputs(loaded.network, x), strict=True):
            torch.testing.assert_close(before, after)


def check_step(network: torch.nn.Module, x: Any) -> None:
    """Assert that a loss decreases the way its gradient says, and that every trainable parameter has one."""
    output = call(network.train(), x)
    scores = prediction(output)
    assert scores.shape[:2] == (2, CLASSES)
    targets = torch.arange(2).reshape(2, *[1] * (scores.dim() - 2)).expand(2, *scores.shape[2:])
    value = Loss("CrossEntropyLossWithAuxiliary", {})(output, targets)
    value.backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert value.isfinite()
    network.zero_grad()


def outputs(network: torch.nn.Module, x: Any) -> list[Tensor]:
    """Return all tensors of the output in evaluation mode."""
    with torch.no_grad():
        return tensors_in(call(network.eval(), x))


if __name__ == "__main__":
    for each in sys.argv[1:]:
        wanted, _, size = each.partition("@")  # resnet50@64: images of 64 pixels
        began = time.perf_counter()
        try:
            check(wanted, int(size) if size else None)
            verdict = "ok"
        except Exception as error:
            verdict = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        print(f"{wanted}: {verdict} ({time.perf_counter() - began:.0f} s)", flush=True)
