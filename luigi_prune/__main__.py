"""`python -m luigi_prune COMMAND`: commands that run no tasks; `--help` lists them."""

from __future__ import annotations

import argparse
import sys
from importlib import metadata

from luigi_prune.commands import cancel, export, listings, logs, luigid, new, plan, report, result_files, status
from luigi_prune.errors import LuigiPruneError
from luigi_prune.workflow.settings import EXIT_CONFIGURATION


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m luigi_prune", description="Experiments, jobs and results.")
    parser.add_argument("--version", action="version", version=f"luigi_prune {metadata.version('luigi_prune')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (plan, status, logs, cancel, luigid, report, result_files, export, listings, new):
        module.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except LuigiPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except (BrokenPipeError, KeyboardInterrupt):
        return 130


if __name__ == "__main__":
    sys.exit(main())
