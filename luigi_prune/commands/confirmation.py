"""The question before a command that deletes or cancels; without a terminal there may be nobody to answer it."""

from __future__ import annotations

import sys

from luigi_prune.errors import ConfigError


def is_confirmed(question: str) -> bool:
    """Ask on the terminal, or read the answer from a pipe; raises ConfigError if there is none."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print(flush=True)
        source = "the input ended" if sys.stdin is not None and sys.stdin.isatty() else "there is no terminal to ask"
        raise ConfigError(f"{source}: nothing was done; --yes does it without a question") from None
    except RuntimeError:  # Python's for a closed standard input
        raise ConfigError("there is no terminal to ask: nothing was done; --yes does it without a question") from None
