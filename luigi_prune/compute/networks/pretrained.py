"""Weights from a file, checked key by key before any is loaded."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.state import load_state
from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry.sources import file_digest

__all__ = ["load_weights"]

log = logging.getLogger("luigi_prune")

_CONTAINERS = ("state_dict", "model_state_dict", "model", "network")  # keys below which checkpoints have the weights
_WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
# Heads that networks of this package do not have, though files of torchvision do.
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
_SHOWN = 3


def load_weights(network: nn.Module, weights: str, new_layers: Sequence[str] = ()) -> None:
    """Load the file `weights`, "path@digest" or a path, into `network`.

    new_layers: names or patterns of modules that keep their weights, whatever the file has under these names.
    A file of a segmentation network's backbone, or of a transformer without its head, is recognised by its keys.
    Raises ConfigError, in one line, for a file that is missing, has changed since its digest was taken or cannot be
    read, and for keys that are missing, superfluous or of another shape.
    """
    path = _checked_file(weights)
    own = network.state_dict()
    state = _renamed(_read(path), own, getattr(network, "base_model_prefix", ""))
    kept = [key for key in own if _is_below(key, new_layers)]
    foreign = [key for key in state if key not in own and not key.startswith(_AUXILIARY)]
    _check_patterns([*own, *foreign], new_layers)
    extra = [key for key in foreign if not _is_below(key, new_layers)]
    wanted = [key for key in own if key not in kept]
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    shapes = [key for key in wanted if key in state and state[key].shape != own[key].shape]
    if reasons := _reasons(state, own, missing, shapes, extra):
        raise ConfigError(f"network.weights: {path} does not fit {type(network).__name__}: {reasons}")
    load_state(network, {**own, **{key: state[key] for key in wanted if key in state}})
    if kept:
        layers = ", ".join(dict.fromkeys(key.rpartition(".")[0] for key in kept))
        log.warning("network.newLayers: %s keep random weights", layers)


def _checked_file(weights: str) -> Path:
    """Return the path; raises ConfigError for a missing file, or content of another digest."""
    name, at, digest = weights.rpartition("@")
    if Path(weights).is_file() or not at:  # a path without a digest may contain the sign
        name, digest = weights, ""
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"network.weights: there is no file {path}")
    if digest and file_digest(path) != digest:
        raise ConfigError(f"network.weights: {path} has changed since this run was planned; run again")
    return path


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; nothing in it is executed."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise ConfigError(f"network.weights: {path} needs the package safetensors; pip install safetensors") from None
    except Exception as error:  # of any kind, for a damaged file
        reason = "it has more than tensors" if "GLOBAL" in str(error) else type(error).__name__
        raise ConfigError(
            f"network.weights: {path} cannot be read as a state dictionary ({reason}); save it with "
            "torch.save(network.state_dict(), path)"
        ) from error
    for key in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ConfigError(f"network.weights: {path} holds no state dictionary: expected tensors by name")
    return dict(content)


def _renamed(state: Mapping[str, Tensor], own: Mapping[str, Tensor], base: str) -> dict[str, Tensor]:
    """Return the state under the names of the network: without wrappers, below the backbone, in present spellings."""
    for wrapper in _WRAPPERS:
        if all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    prefixes = ["", "backbone.", *([f"{base}."] if base else [])]
    prefix = max(prefixes, key=lambda prefix: sum(prefix + key in own for key in state))
    return {_present(prefix + key, own): value for key, value in state.items()}


def _present(key: str, own: Mapping[str, Tensor]) -> str:
    """Return the present spelling of a key, for files of old versions of torchvision and transformers."""
    if key in own:
        return key
    joined = _DENSENET.sub(r"\1\2", key)
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if key.endswith(old):
            joined = key.removesuffix(old) + new
    return joined if joined in own else key


def _is_below(key: str, patterns: Sequence[str]) -> bool:
    """Return whether a key is that of a module in `patterns`, or of one inside it; without its prefix, too."""
    return any(fnmatchcase(name, pattern) for name in _modules_of(key) for pattern in patterns)


def _modules_of(key: str) -> list[str]:
    """Return the names of the modules that a key lies below, and those names without a backbone's prefix."""
    parts = key.split(".")
    return [".".join(parts[start:end]) for start in (0, 1) for end in range(start + 1, len(parts))]


def _check_patterns(keys: Sequence[str], patterns: Sequence[str]) -> None:
    """Raise ConfigError for a pattern that is that of no layer, neither of the network nor of the file."""
    names = dict.fromkeys(name for key in keys for name in _modules_of(key))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"network.newLayers: there is no layer {pattern!r}{nearest(pattern, names)}")


def _reasons(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    missing: Sequence[str],
    shapes: Sequence[str],
    extra: Sequence[str],
) -> str:
    """Return how a file differs from the network, "" if it does not."""
    parts = []
    if shapes:
        parts += [f"{key} is {tuple(state[key].shape)} there, {tuple(own[key].shape)} here" for key in shapes[:_SHOWN]]
    if missing:
        parts.append(f"it lacks {_some(missing)}")
    if extra:
        parts.append(f"it has {_some(extra)}, which the network does not have")
    if not parts:
        return ""
    layers = dict.fromkeys(key.rpartition(".")[0] for key in (*shapes, *missing, *extra))
    cure = f"; network.newLayers: [{', '.join(layers)}] leaves them out" if len(layers) <= _SHOWN else ""
    return "; ".join(parts) + cure


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
