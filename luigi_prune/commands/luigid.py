"""`luigid`: Luigi's server with our settings, a scheduler for large graphs, and a state that outlives a crash."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import luigi.configuration
from rich.console import Console

from luigi_prune.errors import ConfigError
from luigi_prune.scheduling.failed_tasks import FailureScheduler
from luigi_prune.scheduling.server import application, check_state_path, serve
from luigi_prune.web.access import Gate, is_loopback, read_token
from luigi_prune.web.pages import add_pages

DEFAULT_RESULTS = "./data/results"


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("luigid", help="Luigi's server with our settings; runs find it by themselves")
    parser.add_argument("--port", type=int, default=8082, help="port (default: 8082, where runs look for it)")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--state-path", metavar="FILE", help="state file (default: [scheduler] state_path, else "
                        "luigi_prune/luigid-PORT.pickle in $XDG_STATE_HOME)")  # fmt: skip
    parser.add_argument("--results", metavar="FOLDER", action="append", help="results folder whose experiments the "
                        "pages show; may be repeated (default: ./data/results)")  # fmt: skip
    parser.add_argument("--token", metavar="FILE", type=Path, help="ask for the token in FILE, which is made if "
                        "missing: for machines that others use, too")  # fmt: skip
    parser.add_argument("--read-only", action="store_true", help="only show: no retries, no runs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    token = read_token(options.token) if options.token else ""
    if not token and not is_loopback(options.address):
        raise ConfigError(
            f"luigid: at {options.address} everybody in the network could read and change runs; add --token FILE"
        )
    folders = options.results or [DEFAULT_RESULTS]
    if missing := [folder for folder in options.results or () if not Path(folder).is_dir()]:
        raise ConfigError(f"luigid: --results {missing[0]}: no such folder")
    state = state_path(options)
    check_state_path(state)
    scheduler = FailureScheduler(state_path=str(state))
    scheduler.load()
    console = Console(highlight=False)

    def ready(port: int) -> None:
        host = f"[{options.address}]" if ":" in options.address else options.address
        console.print(f"luigid at http://{host}:{port} (state: {state}); Ctrl-C ends it", soft_wrap=True, markup=False)
        asked = f"?token={token}" if token else ""
        console.print(f"experiments: http://{host}:{port}/experiments{asked}", soft_wrap=True, markup=False)
        if token:
            url = f"http://luigi:{token}@{host}:{port}"
            console.print(f"luigi.cfg of runs: [core] default_scheduler_url={url}", soft_wrap=True, markup=False)

    app = application(scheduler)
    add_pages(app, folders, read_only=options.read_only)
    gate = Gate(app, options.port, options.address, token, options.read_only)
    serve(scheduler, gate, options.address, options.port, ready)
    return 0


def state_path(options: argparse.Namespace) -> Path:
    """Return the absolute path of the state file."""
    config = luigi.configuration.get_config()
    given = options.state_path or config.get("scheduler", "state_path", config.get("scheduler", "state-path", ""))
    if not given:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        given = Path(home) / "luigi_prune" / f"luigid-{options.port}.pickle"
    return Path(given).expanduser().resolve()
