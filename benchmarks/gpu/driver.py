"""Runs steps in processes of their own: a step that fails, crashes or hangs never stops the next one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.facts import FAILED, OK, SKIPPED
from benchmarks.gpu.steps import Step

ROOT = Path(__file__).resolve().parents[2]
LEAST_SECONDS = 8.0  # less than importing torch takes: not worth a start
Report = Callable[[str, dict[str, Any]], None]


@dataclass
class Running:
    """One step under way."""

    step: Step
    process: subprocess.Popen[bytes]
    folder: Path
    started: float
    deadline: float
    last_minute: bool  # the total budget ends it before its own limit
    facts: list[dict[str, Any]] = field(default_factory=list)
    late: bool = False  # it was killed at the deadline
    _read: int = 0

    def new_facts(self) -> list[dict[str, Any]]:
        """Return the facts that were written since the last call."""
        with open(self.folder / "facts", "rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        found = [json.loads(line) for line in whole.splitlines()]
        self.facts += found
        return found

    def kill(self) -> None:
        """End the step's process group; processes that left the group watch its driver and end with it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def last_words(self) -> str:
        """Return the last line that the process printed."""
        lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it printed nothing"


def start(step: Step, device: str, threads: int, seconds: float) -> Running:
    """Start a step, which is to end within `seconds` or its own limit."""
    folder = Path(tempfile.mkdtemp(prefix=f"gpu-{step.name}-"))
    (folder / "facts").touch()
    limit = min(step.seconds, seconds)
    arguments = ["-m", "benchmarks.gpu.step", step.function, str(folder / "facts"), device, str(threads), str(limit)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    now = time.monotonic()
    return Running(step, process, folder, now, now + limit, last_minute=seconds < step.seconds)


def run_steps(
    steps: Sequence[Step], report: Report, *, device: str, deadline: float, lanes: int, cores: int
) -> list[dict[str, Any]]:
    """Run `steps` in order, up to `lanes` at once, until `deadline` (monotonic); return a record per step.

    `report` gets each fact (step's name, fact) when it is known.
    """
    waiting, done = list(steps), []
    running: list[Running] = []
    try:
        while waiting or running:
            while waiting and _may_start(waiting[0], running, lanes):
                step = waiting.pop(0)
                left = deadline - time.monotonic()
                if left < LEAST_SECONDS:
                    done.append(skipped(step, "no time left", report))
                else:
                    running.append(start(step, device, min(8 if step.alone else 4, cores), left))
            time.sleep(0.05)
            for one in list(running):
                if _look_at(one, report):
                    running.remove(one)
                    done.append(_finished(one, report))
    finally:  # Ctrl-C reaches this process only
        for one in running:
            one.kill()
    return done


def _look_at(one: Running, report: Report) -> bool:
    """Report a step's new facts, and return whether it has ended, which it is made to at its deadline."""
    one.late = time.monotonic() > one.deadline and one.process.poll() is None
    ended = one.late or one.process.poll() is not None
    if ended:
        one.kill()
    for fact in one.new_facts():
        report(one.step.name, fact)
    return ended


def _may_start(step: Step, running: Sequence[Running], lanes: int) -> bool:
    if step.alone:
        return not running
    return len(running) < lanes and not any(one.step.alone for one in running)


def skipped(step: Step, why: str, report: Report) -> dict[str, Any]:
    """Report a step that is not run, and return its record."""
    fact = {"name": step.about, "value": why, "verdict": SKIPPED, "numbers": {}}
    report(step.name, fact)
    return {"step": step.name, "verdict": SKIPPED, "seconds": 0.0, "facts": [fact]}


def _finished(one: Running, report: Report) -> dict[str, Any]:
    """Return the record of a step that has ended, by itself or not."""
    seconds = time.monotonic() - one.started
    code = one.process.returncode
    wrong = ""
    if one.late:
        limit = "the command's time was over" if one.last_minute else f"killed at its limit of {one.step.seconds:g} s"
        wrong = f"unfinished after {seconds:.0f} s: {limit}; last line: {one.last_words()}"
    elif code:
        wrong = f"the process ended with {code}: {one.last_words()}"
    elif not one.facts:
        wrong = f"the step reported nothing: {one.last_words()}"
    if wrong:
        one.facts.append({"name": "the step itself", "value": wrong, "verdict": FAILED, "numbers": {}})
        report(one.step.name, one.facts[-1])
    verdicts = {fact["verdict"] for fact in one.facts}
    verdict = FAILED if FAILED in verdicts else SKIPPED if verdicts == {SKIPPED} else OK
    log = (one.folder / "log").read_text(errors="replace")[-4000:] if verdict == FAILED else ""
    shutil.rmtree(one.folder, ignore_errors=True)
    return {"step": one.step.name, "verdict": verdict, "seconds": round(seconds, 1), "facts": one.facts, "log": log}
