"""The process of a SLURM job at its beginning and its end, without SLURM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from luigi_prune.execution import claims
from luigi_prune.execution.slurm import entrypoint, submission
from luigi_prune.execution.slurm.heartbeat import heartbeat_path, read_heartbeat
from luigi_prune.execution.slurm.options import Resources
from tests.slurm.recording_listener import maker

REPOSITORY = Path(__file__).resolve().parents[2]


def started(folder: Path, function: str, **request: object) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run a job's process to its end; return it and the folder of its submission."""
    job = maker(folder)(function, **request)
    place = submission.new_folder(folder / "slurm")
    claims.make_claim(job.output, place, 0, 1)
    context = {"threads": 1, "device": "cpu", "loader_workers": 0, "gpus": 0}
    text = json.dumps({"job": job.as_json(), "context": context, "directory": str(REPOSITORY)})
    (place / "0.json").write_text(text)
    command = [sys.executable, "-m", entrypoint.__name__, str(place)]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)
    return done, place


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_after_the_result_is_written_does_not_make_a_job_fail(tmp_path: Path, number: signal.Signals):
    done, place = started(tmp_path, "write_and_be_told_to_stop", signal=int(number))
    assert (done.returncode, (tmp_path / "job.json").exists()) == (0, True), done.stderr
    heartbeat = read_heartbeat(heartbeat_path(place, 0))
    assert heartbeat is not None
    assert heartbeat.ended is not None
    assert heartbeat.ended.status == "done"


def test_a_signal_before_there_are_handlers_is_ignored(tmp_path: Path):
    python = "grep SigIgn /proc/self/status; :"
    command = submission.start_command(Resources(python=python), tmp_path)
    shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert int(shown.split()[1], 16) >> (signal.SIGUSR2 - 1) & 1
