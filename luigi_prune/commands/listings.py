"""`methods` and `schema`: what an experiment file can say."""

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
    parser = commands.add_parser("methods", help="the pruning methods")
    parser.set_defaults(run=methods)
    parser = commands.add_parser("schema", help="the JSON schema of experiment files, for editors")
    parser.set_defaults(run=schema)


def methods(given: argparse.Namespace) -> int:
    """Print the catalogue of methods."""
    table = Table("method", "short", "prunes", "data", "random", "what", "paper", box=None)
    for row in METHODS.values():
        data, random = ("yes" if flag else "no" for flag in (row.needs_data, row.randomised))
        table.add_row(row.name, row.short, row.granularity, data, random, row.summary, row.paper)
    Console(highlight=False).print(table)
    return 0


def schema(given: argparse.Namespace) -> int:
    """Print the JSON schema."""
    print(json.dumps(file_schema(), indent=2))
    return 0
