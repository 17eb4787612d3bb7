"""What the command `export` does: a network of an experiment in a file, checked, with its model card."""

from __future__ import annotations

from pathlib import Path

from luigi_prune.api.disk_sizes import disk_sizes
from luigi_prune.api.exporting import ENDINGS, export, without_labels
from luigi_prune.api.finished import FinishedNetwork
from luigi_prune.api.mask_hooks import release
from luigi_prune.api.model_card import model_card
from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.latency import measure_latency
from luigi_prune.compute.network_inputs import sample_shape
from luigi_prune.errors import ConfigError
from luigi_prune.jobs.inputs import initial_network
from luigi_prune.registry import plain
from luigi_prune.results.hdf5_file import read_about


def take_home(
    source: FinishedNetwork,
    to: str,
    *,
    output: Path | None = None,
    compact: bool = False,
    align: int = 1,
    latency_seconds: float = 1.0,
) -> tuple[Path, Path, float]:
    """Write a network and its model card; return their paths and the largest difference of the outputs.

    output: the file; by default one in ./exported that is named after network, method and ratio. latency_seconds: for
    each of the networks timed for the card (dense, masked, compact); 0: none is.
    """
    small = source.compact(align=align) if compact else None
    path = output or Path("exported") / f"{name_of(source)}{'-compact' if compact else ''}{ENDINGS[to]}"
    card = path.with_name(f"{path.name}.md")
    if card.exists():
        raise ConfigError(f"export: {card} exists; remove it or choose another name")
    about = {
        "keep_ratio": source.keep_ratio,
        "source": {"path": str(source.path), "content_sha256": read_about(source.path)["content_sha256"]},
        "quality": source.quality,
        "versions": source.provenance.get("versions", {}),
    }
    difference = export(small or source, path, to, about=about)
    masked = release(duplicate(source.network)).eval()
    networks = {"dense": initial_network(source.base, sample_shape(source.example_input)), "masked": masked}
    if small is not None:
        networks["compact"] = release(duplicate(small.network)).eval()
    latencies = []
    if latency_seconds:
        inputs = without_labels(source.example_input)
        latencies = measure_latency(networks, inputs, seconds=latency_seconds)
    sizes = {"this file": path.stat().st_size, **disk_sizes(masked, networks.get("compact"))}
    card.write_text(model_card(source, small, path, to, difference, sizes, latencies))
    return path, card, difference


def name_of(source: FinishedNetwork) -> str:
    """Return a file name for a network of an experiment, without an ending."""
    settings, chain = source.base.network, source.chain
    parts = [plain(settings.name), plain(settings.dataset)]
    if chain is not None:
        pruned = "" if chain.steps[-1].retrained else "-not-retrained"
        parts += [plain(source.method), f"keep{source.target_keep_ratio:.4g}{pruned}"]
    parts += [f"net{source.base.net}", *([f"rep{chain.repetition}"] if chain is not None else [])]
    return "-".join(parts).replace("/", "-").replace(":", ".")
