"""Networks in files that other programs read, each checked against the network that it was written from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.api.compacted import Compacted
from luigi_prune.api.exported_state import read_exported, read_state, write_state
from luigi_prune.api.finished import FinishedNetwork
from luigi_prune.api.mask_hooks import release
from luigi_prune.api.pruned import Pruned
from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.network_inputs import (
    Inputs,
    call,
    checked,
    copied,
    map_tensors,
    sample_count,
    select,
    tensors_in,
    tensors_of,
)
from luigi_prune.compute.pruning.problem.layers import evaluating
from luigi_prune.errors import ConfigError, nearest

ENDINGS = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors", "state-dict": ".pt"}
# Of the largest output, or of 1. Other runtimes fuse and order sums in their own way.
TOLERANCES = {"onnx": 1e-4, "torch-export": 1e-5, "safetensors": 1e-5, "state-dict": 1e-5}


def export(
    source: Pruned | Compacted,
    path: str | Path,
    to: str,
    *,
    example_input: Inputs | None = None,
    about: Mapping[str, Any] | None = None,
) -> float:
    """Write the network of `source` to a file, read it back, and return the largest difference of its outputs.

    to: "onnx" and "torch-export" contain the code, for batches of any size if the network allows it.
        "safetensors" and "state-dict" contain weights and, for networks with a name, what rebuilds the network:
        `api.load(path)`; for others `api.load(path, network)`.
    example_input: a batch of inputs, if `source` has none.
    about: more for the files of weights to hold, as JSON.

    The difference is relative to the largest output or to 1. Raises ConfigError if it is more than 1e-5 (ONNX: 1e-4),
    if the file exists, and if a package is missing.
    """
    path = Path(path)
    if to not in ENDINGS:
        raise ConfigError(f"export: to: {to!r} is not a format{nearest(to, ENDINGS)}")
    if path.suffix != ENDINGS[to]:
        raise ConfigError(f"export: {path}: a file of {to} ends in {ENDINGS[to]}")
    if path.exists():
        raise ConfigError(f"export: {path} exists; remove it or choose another name")
    example = source._example if example_input is None else checked("export: the example input", example_input)
    if example is None:
        raise ConfigError("export: give an example_input, on which the written network is compared")
    network = release(duplicate(source.network)).eval()
    example = without_labels(example)
    path.parent.mkdir(parents=True, exist_ok=True)
    run = _writers[to](network, example, path, {**_recipe(source), **(about or {})})
    worst = max(_difference(network, run, batch) for batch in _batches(example))
    if not worst <= TOLERANCES[to]:
        path.unlink(missing_ok=True)
        raise ConfigError(f"export: the outputs of the {to} file differ by {worst:.1e}; nothing is left of it")
    return worst


def _recipe(source: Pruned | Compacted) -> dict[str, Any]:
    """Return what rebuilds the network of `source` and says which one it is."""
    return {
        "network": source.recipe,
        "structure": source.structure,
        "plan": source.plan if isinstance(source, Compacted) else [],
        "method": source.method,
        "size": source.size,
        "original_size": source.original_size,
        "quality": source.quality if isinstance(source, FinishedNetwork) else {},
    }


def without_labels(example: Inputs) -> Inputs:
    """Return the inputs without labels: transformers' networks compute a loss with them, which is of no use outside."""
    if isinstance(example, Mapping):
        return {name: value for name, value in example.items() if name != "labels"}
    return example


def _batches(example: Inputs) -> list[Inputs]:
    """Return the example and, as a batch of another size, the same without its last sample, if there are several."""
    count = sample_count(example)
    return [example, select(example, slice(count - 1))] if count > 1 else [example]


@torch.no_grad()
def _difference(network: nn.Module, run: Callable[[Inputs], list[Tensor]], batch: Inputs) -> float:
    with evaluating(network):
        expected = tensors_in(call(network, copied(batch)))
    found = run(copied(batch))
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
        return float("nan")
    return max(
        float((one - other).abs().max()) / max(1.0, float(one.abs().max()))
        for one, other in zip(expected, found, strict=True)
    )


# ---------------------------------------------------------------------------------------------------------- programs


def _program(network: nn.Module, example: Inputs) -> torch.export.ExportedProgram:
    """Return the network as a graph for batches of any size, or of the example's if its code fixes the size."""
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    if isinstance(example, Mapping):
        keywords = dict(example)
    else:
        arguments = (example,) if isinstance(example, Tensor) else tuple(example)
    free = torch.export.Dim.AUTO  # any size, unless the network's code fixes it
    shapes = map_tensors(lambda value: {0: free}, example)
    if isinstance(example, Mapping):
        shapes = dict(shapes)
    else:
        shapes = (shapes,) if isinstance(example, Tensor) else tuple(shapes)
    with evaluating(network), torch.no_grad(), _explained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own code
        return torch.export.export(network, arguments, keywords, dynamic_shapes=shapes)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"export: {error}: pip install onnx onnxscript onnxruntime") from error
    except (torch.OutOfMemoryError, ConfigError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ConfigError(
            f"export: torch.export cannot follow the network's code: {type(error).__name__}: {reason}; the formats "
            "safetensors and state-dict need no graph"
        ) from error


def _write_torch_export(
    network: nn.Module, example: Inputs, path: Path, about: dict[str, Any]
) -> Callable[[Inputs], list[Tensor]]:
    torch.export.save(_program(network, example), path)
    loaded = torch.export.load(path).module()
    return lambda batch: tensors_in(call(loaded, batch))


def _write_onnx(
    network: nn.Module, example: Inputs, path: Path, about: dict[str, Any]
) -> Callable[[Inputs], list[Tensor]]:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"export: ONNX needs {error.name}: pip install onnx onnxscript onnxruntime") from None
    program = _program(network, example)
    with _explained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = torch.onnx.export(program, dynamo=True, verbose=False)
        assert written is not None
        written.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(batch: Inputs) -> list[Tensor]:
        arrays = [tensor.detach().cpu().numpy() for tensor in tensors_of(batch)]
        if len(arrays) != len(names):  # inputs that the network ignores are none of the graph's
            given = dict(batch) if isinstance(batch, Mapping) else {}
            arrays = [given[name].numpy() for name in names]
        outputs = session.run(None, dict(zip(names, arrays, strict=True)))
        return [torch.from_numpy(each) for each in outputs]

    return run


# ----------------------------------------------------------------------------------------------------------- weights


def _write_state(
    network: nn.Module, example: Inputs, path: Path, about: dict[str, Any]
) -> Callable[[Inputs], list[Tensor]]:
    write_state(path, network, about)
    if about["network"] is None:  # the code is the caller's: only the weights can be compared
        loaded = duplicate(network)
        loaded.load_state_dict(read_state(path)[0])
    else:
        loaded = read_exported(path).network
    return lambda batch: tensors_in(call(loaded.eval(), batch))


_writers: dict[str, Callable[[nn.Module, Inputs, Path, dict[str, Any]], Callable[[Inputs], list[Tensor]]]] = {
    "onnx": _write_onnx,
    "torch-export": _write_torch_export,
    "safetensors": _write_state,
    "state-dict": _write_state,
}
