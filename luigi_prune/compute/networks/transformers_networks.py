"""Networks of transformers with random weights (an optional dependency)."""

from __future__ import annotations

from typing import Any

from torch import nn

from luigi_prune.errors import ConfigError, nearest

_BERT_BASE_CASED = {"vocab_size": 28996}  # all other sizes are those of transformers' configuration


def bert(input_shape: Any, output_size: int, *, name: str, **kwargs: Any) -> nn.Module:
    """Return bert-base-cased for the classification of sequences; `kwargs` change its configuration."""
    return transformers_network(input_shape, output_size, name=name, model="bert", **{**_BERT_BASE_CASED, **kwargs})


def transformers_network(
    input_shape: Any, output_size: int, *, name: str, model: str, auto_class: str | None = None, **kwargs: Any
) -> nn.Module:
    """Return a network by its kind (`vit`), or by the folder or hub name of its configuration.

    auto_class: the class of transformers that builds it; by default that for the classification of images if inputs are
        images, else of sequences.
    kwargs: change the configuration, such as num_hidden_layers.
    """
    import transformers

    images = isinstance(input_shape, tuple) and len(input_shape) == 3 and all(isinstance(n, int) for n in input_shape)
    chosen = auto_class or f"AutoModelFor{'Image' if images else 'Sequence'}Classification"
    builder = getattr(transformers, chosen, None)
    if not chosen.startswith("AutoModel") or builder is None:
        choices = [each for each in dir(transformers) if each.startswith("AutoModelFor")]
        raise ConfigError(f"network.kwargs.auto_class: transformers has no {chosen!r}{nearest(chosen, choices)}")
    configuration = _configuration(name, model)
    sizes: dict[str, Any] = {"num_labels": output_size, "use_cache": False}
    if images:
        sizes |= {"num_channels": input_shape[0], "image_size": input_shape[1]}
    for keyword, value in {**sizes, **kwargs}.items():
        if hasattr(configuration, keyword):
            setattr(configuration, keyword, value)
        elif keyword in kwargs:
            raise ConfigError(f"network.kwargs: the configuration of {name} has no {keyword!r}")
    network: nn.Module = builder.from_config(configuration)
    return network


def _configuration(name: str, model: str) -> Any:
    """Return the configuration of a kind of networks, or that of a folder or of the hub's files on this machine."""
    from transformers import CONFIG_MAPPING, AutoConfig

    if model in CONFIG_MAPPING:
        return CONFIG_MAPPING[model]()
    try:
        return AutoConfig.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError) as error:
        hint = nearest(model, CONFIG_MAPPING) if "/" not in model else ""
        raise ConfigError(
            f"network.name: {name}: there is no configuration {model!r} on this machine, as a folder with a "
            f"config.json or in the hub's cache (`hf download {model} config.json`){hint}"
        ) from error
