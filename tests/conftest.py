"""What all tests share: one thread, a quiet Luigi, no network, results in a temporary folder."""

from __future__ import annotations

import os
import signal

import pytest

# A shell starts background commands with Ctrl-C ignored, and children inherit that; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


@pytest.fixture
def backend(monkeypatch):
    """Put a pretended backend where runs in this process take theirs from."""
    from luigi_prune.workflow import luigi_integration
    from tests.pretend import PretendBackend

    pretend = PretendBackend()
    monkeypatch.setattr(luigi_integration, "choose", lambda settings: pretend)
    return pretend
