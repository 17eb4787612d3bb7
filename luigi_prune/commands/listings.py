"""`methods` and `schema`: the pruning methods, and the JSON schema of experiment files."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from luigi_prune.config.json_schema import file_schema
from luigi_prune.registry import METHODS


def add_to(commands: Any) -> None:
    """Add the parsers."""
    parser = commands.add_parser("methods", help="list the pruning methods")
    parser.set_defaults(run=print_methods)
    parser = commands.add_parser("schema", help="print the JSON schema of experiment files, for editors")
    parser.set_defaults(run=print_schema)


def print_methods(options: argparse.Namespace) -> int:
    """Print the table of methods, and the kinds of layers that they prune."""
    table = Table("method", "short", "prunes", "data", "random", "what", "paper", box=None)
    for row in METHODS.values():
        data, random = ("yes" if flag else "no" for flag in (row.needs_data, row.randomised))
        table.add_row(row.name, row.short, row.granularity, data, random, row.summary, row.paper)
    console = Console(highlight=False)
    console.print(table)
    for granularity, layers in {row.granularity: row.layers for row in METHODS.values() if row.layers}.items():
        console.print(f" {granularity}: of {layers}", soft_wrap=True)
    return 0


def print_schema(options: argparse.Namespace) -> int:
    """Print the JSON schema."""
    print(json.dumps(file_schema(), indent=2))
    return 0
