"""Redirects a job's output to its log, and reads the log's last lines."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from pathlib import Path

LAST_LINES = 20
_BYTES = 16_384


def last_lines(log: str | Path, start: int = 0) -> str:
    """Return the last lines of a log, from byte `start` at the earliest; "" if there is no log."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - _BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-LAST_LINES:])
    except OSError:
        return ""


def write_output_to(log: str) -> None:
    """Redirect stdout and stderr of this process, native libraries included, to the end of the file `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)  # the umask decides: users may share it
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(
            sys, name, os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        )
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.getLogger("luigi_prune").setLevel(logging.INFO)
    faulthandler.enable(sys.stderr)  # on a crash in native code, write the Python stack to the log
