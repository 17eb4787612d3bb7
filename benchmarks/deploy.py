"""Parameters, bytes and latency of compact networks beside their multiply-adds: the tables of docs/deploy.md.

python benchmarks/deploy.py [NAME ...] [--seconds 2] [--threads 1 2]

Weights are random, and filters are pruned by their norms: speed does not depend on the values. Dense, masked and
compact networks are timed alternately in one process; a ratio is over the dense network's time in the same round.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from luigi_prune import api
from luigi_prune.compute.network_inputs import sample_count

IMAGES = (3, 32, 32)


def vit() -> nn.Module:
    """Return a ViT of four layers, 64 features and four heads, whose attention is `nn.MultiheadAttention`."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32, patch_size=4, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=256, num_classes=10
    )


def bert() -> nn.Module:
    """Return BERT-tiny: two layers, 128 features, two heads."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    return BertForSequenceClassification(BertConfig(vocab_size=1000, **sizes))


def images(batch: int, edge: int = 32) -> Callable[[], torch.Tensor]:
    """Return a function that draws images."""
    return lambda: torch.randn(batch, 3, edge, edge, generator=torch.Generator().manual_seed(0))


def tokens() -> dict[str, torch.Tensor]:
    """Return sixteen sentences of 32 tokens."""
    ids = torch.randint(0, 1000, (16, 32), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def by_name(name: str, edge: int = 32) -> Callable[[], nn.Module]:
    """Return a function that builds a network of the registry."""
    return lambda: api.network(name, (3, edge, edge), 10, seed=1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "vgg16": (by_name("vgg16"), images(16)),
    "resnet20": (by_name("resnet20"), images(16)),
    "densenet22": (by_name("densenet22"), images(16)),
    "mobilenet_v2": (by_name("mobilenet_v2", 64), images(8, 64)),
    "vit": (vit, images(16)),
    "bert": (bert, tokens),
}
REMOVED = (0.5, 0.8)  # shares of the filters


def main() -> None:
    """Print one row per network and share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.machine()}, float32; ratios are over the dense network's")
    columns = [
        "network (batch)",
        "filters removed",
        "parameters: dense / kept / stored",
        "KB: dense / values and bits / compact / compact int8",
        "multiply-adds: masked / compact",
        *(f"{count} thread(s): dense; latency masked / compact" for count in options.threads),
        "difference",
        "layers with dead filters",
    ]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in options.names:
        for share in REMOVED:
            row(name, share, options.seconds, options.threads)


def row(name: str, share: float, seconds: float, threads: list[int]) -> None:
    """Print the figures of one network of which about `share` of the filters are removed."""
    build, draw = NETWORKS[name]
    torch.manual_seed(0)
    network, inputs = with_statistics(build()).eval(), draw()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruned = api.prune(network, "FilterThresNet", max(0.02, (1 - share) ** 2), example_input=inputs)
    small = pruned.compact()
    masked = api.release(pruned.network)
    compact = api.release(small.network)
    sizes = api.disk_sizes(masked, compact)
    removed = 1 - sum(int(layer.mask.flatten(1).any(1).sum()) for layer in pruned.layers) / sum(
        layer.shape[0] for layer in pruned.layers
    )
    assert pruned.original_flops
    cells = [
        f"{name} ({sample_count(inputs)})",
        f"{100 * removed:.0f} %",
        f"{pruned.original_size:,} / {pruned.size:,} / {small.size:,}",
        " / ".join(f"{sizes[key] / 1e3:,.0f}" for key in ("dense", "sparse", "compact", "compact int8")),
        f"{pruned.flops / pruned.original_flops:.3f} / {small.flops / pruned.original_flops:.3f}",
    ]
    for count in threads:
        timed = api.measure_latency(
            {"dense": network, "masked": masked, "compact": compact}, inputs, threads=count, seconds=seconds
        )
        cells.append(f"{1e3 * timed[0].seconds:.1f} ms; {' / '.join(map(shown, timed[1:]))}")
    print("| " + " | ".join([*cells, f"{small.difference:.0e}", f"{len(small.left)}"]) + " |", flush=True)


def shown(timed: api.Latency) -> str:
    """Return a ratio and its quartiles."""
    low, high = timed.ratio_quartiles
    return f"{timed.ratio:.2f} ({low:.2f} to {high:.2f})"


def with_statistics(network: nn.Module) -> nn.Module:
    """Return `network` with numbers as after training in BatchNorm, and in layers that are zero at first."""
    for module in network.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():  # the head of torchvision's ViT
            nn.init.normal_(module.weight, std=0.1)
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return network


if __name__ == "__main__":
    main()
