"""`export RESULT|CONFIG...`: networks of an experiment in files that other programs read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from luigi_prune.errors import ConfigError

FORMATS = ("onnx", "torch-export", "safetensors", "state-dict")


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("export", help="write a network of an experiment to a file, with a model card")
    parser.add_argument("sources", nargs="+", metavar="RESULT|CONFIG", help="result (.h5) or experiment file (.yaml)")
    parser.add_argument("--to", choices=FORMATS, default="onnx", help="format of the file (onnx)")
    parser.add_argument("--method", help="of an experiment file: the method; without it the trained network")
    parser.add_argument("--keep-ratio", type=float, help="of an experiment file: the closest ratio is taken")
    parser.add_argument("--net", type=int, default=0, help="of an experiment file (0)")
    parser.add_argument("--repetition", type=int, default=0, help="of an experiment file (0)")
    parser.add_argument("--member", help="of an experiment file with a sweep: the name of one experiment")
    parser.add_argument("--compact", action="store_true", help="remove dead filters, channels, heads and ranks")
    parser.add_argument("--align", type=int, default=1, help="with --compact: keep widths multiples of this number")
    parser.add_argument(
        "--output", type=Path, help="file to write; by default one in ./exported named after the network"
    )
    parser.add_argument("--no-latency", action="store_true", help="measure no latency for the model card")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export every source; prints a line for each file."""
    sources = options.sources
    if options.output and len(sources) > 1:
        raise ConfigError("--output: names one file, but there are several sources; leave it out")
    if options.align != 1 and not options.compact:
        raise ConfigError("--align: has no meaning without --compact")
    for source in sources:
        if not Path(source).is_file() and not source.endswith((".yaml", ".yml")):
            raise ConfigError(f"{source}: no such file")
    from luigi_prune.api.finished import FinishedNetwork  # torch
    from luigi_prune.api.load_file import load
    from luigi_prune.api.taking_home import take_home

    for source in sources:
        chosen: dict[str, Any] = {}
        if source.endswith((".yaml", ".yml")):
            chosen = {name: getattr(options, name) for name in ("method", "keep_ratio", "net", "repetition", "member")}
        elif options.method or options.keep_ratio is not None:
            raise ConfigError(
                f"{source}: --method and --keep-ratio choose from an experiment file, this is one network"
            )
        network = load(source, **chosen)
        if not isinstance(network, FinishedNetwork):
            raise ConfigError(f"{source}: is no result of an experiment")
        path, card, difference = take_home(
            network,
            options.to,
            output=options.output,
            compact=options.compact,
            align=options.align,
            latency_seconds=0.0 if options.no_latency else 1.0,
        )
        kept = "" if network.chain is None else f", {network.method} at keep ratio {network.target_keep_ratio:.4g}"
        print(f"{path}  ({path.stat().st_size:,} bytes{kept}; outputs differ by {difference:.1e}); card: {card}")
    return 0
