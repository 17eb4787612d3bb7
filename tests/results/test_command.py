"""The command that provenance records is the user's, also in processes that fork servers start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from luigi_prune.results import provenance


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/opt/bin/luigi", "--config", "my file.yaml"], "luigi --config 'my file.yaml'"),
        (["-c", "from multiprocessing"], ""),
        ([], ""),
    ],
)
def test_the_command_of_the_driver_is_inherited(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], expected: str
) -> None:
    monkeypatch.setenv(provenance.COMMAND, "")
    monkeypatch.delenv(provenance.COMMAND)
    monkeypatch.setattr(sys, "argv", argv)
    provenance.announce_command()
    code = "from luigi_prune.results import provenance; print(provenance.provenance()['command'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
