"""The model card of an exported network: what it is, costs, is worth, how to run it and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luigi_prune.api.compacted import Compacted
from luigi_prune.api.finished import FinishedNetwork
from luigi_prune.compute.latency import Latency
from luigi_prune.compute.network_inputs import Inputs, leaves
from luigi_prune.registry import METHODS, plain
from luigi_prune.results.hdf5_file import read_about
from luigi_prune.results.provenance import versions

_USE = {
    "onnx": """\
import onnxruntime

session = onnxruntime.InferenceSession("{name}")
outputs = session.run(None, {{input.name: x for input, x in zip(session.get_inputs(), inputs)}})""",
    "torch-export": """\
import torch

network = torch.export.load("{name}").module()
outputs = network({arguments})""",
    "weights": """\
from luigi_prune import api

network = api.load("{name}").network
outputs = network({arguments})""",
}


def model_card(
    source: FinishedNetwork,
    small: Compacted | None,
    path: Path,
    to: str,
    difference: float,
    sizes: dict[str, int],
    latencies: Sequence[Latency],
) -> str:
    """Return the card in Markdown; `small`: the compact network, if that is what was written."""
    settings = source.base.network
    title = f"{plain(settings.name)} on {plain(settings.dataset)}"
    what = "not pruned" if source.chain is None else f"pruned by {plain(source.method)}"
    parts = [
        f"# {title}, {what}",
        f"`{path.name}`, {to}. Written by `python -m luigi_prune export`; outputs compared with those of the source: "
        f"the largest difference is {difference:.1e} (of the largest output, or of 1).",
        _network(source, small),
        _quality(source),
        _costs(source, small, sizes, latencies),
        _left(small),
        _use(source, path, to),
        _provenance(source),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _network(source: FinishedNetwork, small: Compacted | None) -> str:
    settings = source.base.network
    rows = [
        ("network", f"{plain(settings.name)}{_keywords(settings.kwargs)}"),
        ("data", f"{plain(settings.dataset)}, {settings.output_size} outputs"),
    ]
    if source.chain is not None:
        row = METHODS.get(source.method)
        steps = ", ".join(f"{each.keep_ratio:.4g}{'' if each.retrained else ' (not retrained)'}"
                          for each in source.chain.steps)  # fmt: skip
        rows += [
            ("method", f"{plain(source.method)}{f': {row.summary}' if row and row.summary else ''}"),
            ("paper", row.paper if row else ""),
            ("keep ratio", f"{source.target_keep_ratio:.4g} asked for, {source.keep_ratio:.4g} achieved"),
            ("steps", steps),
            ("net, repetition", f"{source.base.net}, {source.chain.repetition}"),
        ]
    rows += [
        ("parameters", f"{source.size:,} kept of {source.original_size:,}"),
        ("multiply-adds", f"{source.flops:,} of {source.original_flops:,} per sample, zeros not counted"),
    ]
    if small is not None:
        rows += [("compact", f"{small.size:,} parameters are stored, {small.flops:,} multiply-adds are computed")]
    return "## Network\n\n" + _table(("", ""), [row for row in rows if row[1]])


def _keywords(kwargs: Any) -> str:
    return f" ({', '.join(f'{name}={value!r}' for name, value in kwargs.items())})" if kwargs else ""


def _quality(source: FinishedNetwork) -> str:
    if not source.quality:
        return "## Quality\n\nNot evaluated: the experiment has no evaluation of this network."
    names = list(dict.fromkeys(name for values in source.quality.values() for name in values))
    rows = [
        (test_set, *(f"{values[name]:.4f}" if name in values else "" for name in names))
        for test_set, values in source.quality.items()
    ]
    return "## Quality\n\nAs evaluated by the experiment.\n\n" + _table(("test set", *names), rows)


def _costs(
    source: FinishedNetwork, small: Compacted | None, sizes: dict[str, int], latencies: Sequence[Latency]
) -> str:
    text = "## Cost\n\n" + _table(("weights in a file", "bytes"), [(n, f"{count:,}") for n, count in sizes.items()])
    if not latencies:
        return text
    one = latencies[0]
    rows = [
        (
            each.name,
            f"{1e3 * each.seconds:.3f} ({1e3 * each.quartiles[0]:.3f} to {1e3 * each.quartiles[1]:.3f})",
            f"{each.samples_per_second:,.0f}",
            f"{each.ratio:.2f} ({each.ratio_quartiles[0]:.2f} to {each.ratio_quartiles[1]:.2f})",
            flops,
        )
        for each, flops in zip(latencies, _flop_ratios(source, small, latencies), strict=True)
    ]
    about = (
        f"Latency on this machine ({one.device}, {one.threads} thread{'s' if one.threads > 1 else ''}, batch "
        f"{one.batch}, {one.dtype}, in torch): median and quartiles."
    )
    columns = ("network", "ms per batch", "samples/s", "latency over dense", "multiply-adds over dense")
    return f"{text}\n\n{about}\n\n{_table(columns, rows)}"


def _flop_ratios(source: FinishedNetwork, small: Compacted | None, latencies: Sequence[Latency]) -> list[str]:
    whole = source.original_flops or 1
    flops = {"dense": whole, "masked": source.flops, "compact": small.flops if small else None}
    return [f"{count / whole:.2f}" if (count := flops.get(each.name)) is not None else "" for each in latencies]


def _left(small: Compacted | None) -> str:
    if small is None or not small.left:
        return ""
    rows = [(name, str(count), why) for name, (count, why) in small.left.items()]
    return "## Dead filters that could not be removed\n\n" + _table(("layer", "filters", "why"), rows)


def _use(source: FinishedNetwork, path: Path, to: str) -> str:
    arguments = "x"
    if not hasattr(source.example_input, "shape"):
        arguments = "**inputs" if isinstance(source.example_input, dict) else "*inputs"
    code = _USE.get(to, _USE["weights"]).format(name=path.name, arguments=arguments)
    steps = "\n".join(f"{number}. `{each!r}`".replace("\n", " ") for number, each in enumerate(source.transforms, 1))
    before = f"Transforms of the data set's samples, in order:\n\n{steps}\n\n" if steps else ""
    return f"## Use\n\nInputs: {described(source.example_input)}.\n\n{before}```python\n{code}\n```"


def described(inputs: Inputs) -> str:
    """Return the names, shapes and types of inputs for people."""
    parts = []
    for name, value in leaves(inputs):
        if hasattr(value, "shape"):
            shape = ", ".join(["batch", *map(str, value.shape[1:])])
            parts.append(f"{f'`{name}`: ' if name else ''}({shape}) of {str(value.dtype).removeprefix('torch.')}")
    return "; ".join(parts)


def _provenance(source: FinishedNetwork) -> str:
    about, made = read_about(source.path), source.provenance
    rows = [
        ("result", f"`{source.path}`"),
        ("stage", source.family),
        ("key", f"`{about['key']}`"),
        ("sha256 of its contents", f"`{about['content_sha256']}`"),
        ("finished", f"{made.get('finished', '')} on {made.get('host', '')}"),
        ("computed with", ", ".join(f"{name} {number}" for name, number in made.get("versions", {}).items())),
        ("source", json.dumps(made["source"]) if made.get("source") else ""),
        ("exported with", ", ".join(f"{name} {versions()[name]}" for name in ("python", "torch"))),
    ]
    return "## Provenance\n\n" + _table(("", ""), [row for row in rows if row[1]])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)])
