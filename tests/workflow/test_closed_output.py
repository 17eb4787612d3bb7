"""A run goes on if nothing reads its output any more."""

from __future__ import annotations

import os
import subprocess
import sys

NOTES = """
import sys
from luigi_prune.execution.inline import InlineBackend
from luigi_prune.execution.job import ComputeSettings
from luigi_prune.workflow.progress_display import Board
board = Board(InlineBackend(ComputeSettings()))
for number in range(3):
    board.note(f"note {number}")
board.close()
print("printed")
sys.stdout.flush()
print("at the end", file=sys.stderr)
"""


def test_a_closed_pipe_changes_nothing_but_the_output() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", NOTES], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "at the end\n")
