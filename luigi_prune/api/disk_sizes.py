"""Bytes of a network's weights in files: dense, sparse and in whole numbers of eight bits."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from luigi_prune.compute.state import to_arrays
from luigi_prune.results.hdf5_file import write_result


def disk_sizes(masked: nn.Module, compact: nn.Module | None = None) -> dict[str, int]:
    """Return the bytes of files with the weights of a masked network, and of its compact form.

    "dense": `torch.save` of the state dictionary. "sparse": a result file, which stores an array with many zeros as its
    values and one bit per entry. "int8": `torch.save` with every weight matrix in eight bits and one scale per filter.
    "compact" and "compact int8": the same of the smaller network. Nothing is compressed but bits.
    """
    sizes = {"dense": _saved(masked.state_dict()), "sparse": _sparse(masked), "int8": _saved(in_int8(masked))}
    if compact is not None:
        sizes |= {"compact": _saved(compact.state_dict()), "compact int8": _saved(in_int8(compact))}
    return sizes


@torch.no_grad()
def in_int8(network: nn.Module) -> dict[str, Tensor]:
    """Return the state of `network` with every weight of two or more axes as whole numbers and a scale per filter."""
    state: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if value.is_floating_point() and value.dim() > 1:
            rows = value.flatten(1)
            scale = rows.abs().amax(1).clamp_min(1e-12) / 127
            state[name] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape)
            state[f"{name}.scale"] = scale
        else:
            state[name] = value
    return state


def _saved(state: Mapping[str, Tensor]) -> int:
    buffer = io.BytesIO()
    torch.save({name: value.detach().cpu().clone() for name, value in state.items()}, buffer)
    return buffer.getbuffer().nbytes


def _sparse(network: nn.Module) -> int:
    arrays, _ = to_arrays(network.state_dict())
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sparse.h5"
        write_result(path, family="Sizes", key="", spec={}, provenance={}, arrays=arrays)
        return path.stat().st_size
