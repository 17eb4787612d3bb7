"""Decomposed networks are ordinary networks: they export, and another runtime computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.compute.pruning.test_contract import prune_like
from tests.compute.pruning.zoo import trained_like

CASES = [
    ("ALDSNetPlus", "convnet"), ("ALDSNet", "mlp"), ("MessiNet", "residual"), ("LearnedRankNet", "plain"),
    ("PCANet", "concat"), ("SVDNet", "sequence"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_torch_export(method: str, kind: str) -> None:
    network, example = trained_like(kind)
    pruned = prune_like(network, method, 0.4, example)
    assert pruned.structure
    exported = torch.export.export(pruned.network, (example,)).module()
    with torch.no_grad():
        assert torch.allclose(exported(example), pruned.network(example), atol=1e-5)


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_onnx_export(method: str, kind: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    import onnxruntime

    network, example = trained_like(kind)
    pruned = prune_like(network, method, 0.4, example).network
    path = tmp_path / "pruned.onnx"
    torch.onnx.export(pruned, (example,), str(path), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    with torch.no_grad():
        wanted = pruned(example).numpy()
    assert np.abs(output - wanted).max() <= 1e-4 * max(1.0, np.abs(wanted).max())
