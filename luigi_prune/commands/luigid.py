"""`luigid`: Luigi's server with our settings, a scheduler for large graphs, and a state that outlives a crash."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import luigi.configuration
from rich.console import Console

from luigi_prune.scheduling.indexed_scheduler import IndexedScheduler
from luigi_prune.scheduling.server import application, check_state_path, serve


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("luigid", help="Luigi's server with our settings; runs find it by themselves")
    parser.add_argument("--port", type=int, default=8082, help="port (default: 8082, where runs look for it)")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--state-path", metavar="FILE", help="state file (default: [scheduler] state_path, else "
                        "luigi_prune/luigid-PORT.pickle in $XDG_STATE_HOME)")  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    state = state_path(options)
    check_state_path(state)
    scheduler = IndexedScheduler(state_path=str(state))
    scheduler.load()
    console = Console(highlight=False)

    def ready(port: int) -> None:
        host = f"[{options.address}]" if ":" in options.address else options.address
        console.print(f"luigid at http://{host}:{port} (state: {state}); Ctrl-C ends it", soft_wrap=True, markup=False)

    serve(scheduler, application(scheduler), options.address, options.port, ready)
    return 0


def state_path(options: argparse.Namespace) -> Path:
    """Return the absolute path of the state file."""
    config = luigi.configuration.get_config()
    given = options.state_path or config.get("scheduler", "state_path", config.get("scheduler", "state-path", ""))
    if not given:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        given = Path(home) / "luigi_prune" / f"luigid-{options.port}.pickle"
    return Path(given).expanduser().resolve()
