"""Weights in a file of safetensors or of `torch.save`, with all that rebuilds the network around them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.api.network_by_name import network as build_network
from luigi_prune.api.network_files import load_weights
from luigi_prune.api.plain_network import unwrapped
from luigi_prune.compute.pruning.compaction import rebuild
from luigi_prune.compute.state import tensors_of_state
from luigi_prune.errors import ConfigError, first_line

STATES = (".safetensors", ".pt")
_FORMAT = "luigi_prune network 1"


@dataclass(kw_only=True)
class ExportedNetwork:
    """A network read from exported weights: in evaluation mode, its zeros not held in training.

    `about`: method, ratio, sizes, quality and provenance, as in the file.
    """

    network: nn.Module = field(repr=False)
    path: Path
    about: dict[str, Any] = field(repr=False)

    @property
    def quality(self) -> dict[str, dict[str, float]]:
        """Test set -> loss and metrics, as evaluated by the experiment."""
        return dict(self.about["quality"])


def beside(path: Path) -> Path:
    """Return the path of the file that says how to rebuild the network of a state dictionary."""
    return path.with_name(f"{path.name}.json")


def write_state(path: Path, network: nn.Module, about: dict[str, Any]) -> None:
    """Write the weights, and `about`: in the header of safetensors, in a JSON file beside those of `torch.save`."""
    tensors = tensors_of_state(network.state_dict())
    state = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    text = json.dumps({"format": _FORMAT, **about}, indent=1)
    if path.suffix == ".safetensors":
        save_file = _safetensors(path).save_file
        save_file(state, str(path), metadata={"luigi_prune": text})
        return
    torch.save(state, path)
    beside(path).write_text(text + "\n")


def read_exported(path: Path, network: nn.Module | None = None) -> ExportedNetwork:
    """Return the network of a file of `write_state`; `network`: the architecture, if it has no name.

    Raises FileNotFoundError, and ConfigError for a file of something else.
    """
    state, text = read_state(path)
    try:
        about = json.loads(text)
        if about.pop("format") != _FORMAT:
            raise ValueError
        recipe, structure, plan = about["network"], about["structure"], about["plan"]
    except (ValueError, KeyError, AttributeError):
        raise ConfigError(
            f"{path}: does not say how to build its network; `python -m luigi_prune export` writes files that do"
        ) from None
    if network is None:
        if recipe is None:
            raise ConfigError(f"{path}: the file has no code: pass the unpruned architecture, api.load(path, network)")
        kwargs = recipe["kwargs"]
        network = build_network(recipe["name"], as_shape(recipe["input_shape"]), recipe["outputs"], seed=0, **kwargs)
    small = rebuild(unwrapped(network), structure, plan)
    load_weights(small, state, path, "the weights")
    return ExportedNetwork(network=small.eval(), path=path, about=about)


def as_shape(value: Any) -> Any:
    """Return a shape from JSON: tuples in place of lists."""
    if isinstance(value, dict):
        return {name: as_shape(each) for name, each in value.items()}
    return tuple(as_shape(each) for each in value) if isinstance(value, list) else value


def read_state(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the weights of a file, and the JSON that says how to build the network, "" without it."""
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    if path.suffix == ".safetensors":
        library = _safetensors(path)
        with library.safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get("luigi_prune", "")
            return {name: file.get_tensor(name) for name in file.keys()}, text  # noqa: SIM118
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ConfigError(f"{path}: is no state dictionary: {first_line(error)}") from error
    recipe = beside(path)
    return state, recipe.read_text() if recipe.is_file() else ""


def _safetensors(path: Path) -> Any:
    try:
        import safetensors.torch as library
        from safetensors import safe_open
    except ImportError:
        raise ConfigError(f"{path}: needs safetensors: pip install safetensors") from None
    library.safe_open = safe_open
    return library
