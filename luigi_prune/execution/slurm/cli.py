"""SLURM's commands, as questions with answers. Every call has a time limit, is counted, and may fail."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CHUNK = 100  # ids or names on one command line
_NOT_FOUND = "not found; is SLURM installed here?"
# what sacct says where there is no accounting at all; whatever else it says may pass
_NO_ACCOUNTING = ("accounting storage is disabled", "accounting_storage/none", _NOT_FOUND)
# what sbatch says when it would take the job at another time
_PASSES = (
    *("limit", "timed out", "temporarily", "try again", "busy", "too many", "standby", "not responding"),
    *("unable to contact", "connect", "communication", "zero bytes", "no answer", "no space", "quota exceeded"),
)
# ... and where the word "limit" means this job, at any time
_STAYS = ("perjob", "per_job", "wall", "time limit is invalid", "timelimit", "nodelimit")
# ... and where it may have worked all the same
_IN_DOUBT = ("timed out", "connection", "communication", "zero bytes", "no answer", "no space", "quota exceeded")


class CommandFailed(Exception):
    """A SLURM command that failed or took too long; its text is what the site said."""


@dataclass(frozen=True)
class Row:
    """What SLURM says of one job (array elements have ids like 12_3)."""

    state: str  # one word, as SLURM spells it
    reason: str = ""  # why it waits, or its exit code
    nodes: str = ""
    start: str = ""  # when it began or will begin, as far as the scheduler knows


class Client:
    """Asks SLURM, and remembers what it cost."""

    def __init__(self, seconds: float = 60.0):
        """`seconds`: patience with one command."""
        self.seconds = seconds
        self.calls: Counter[str] = Counter()
        self.accounting: bool | None = None  # whether sacct works; None until asked

    def call(self, *command: str) -> str:
        """Return what a command prints; raises CommandFailed."""
        self.calls["sbatch --test-only" if "--test-only" in command else command[0]] += 1
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.seconds,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise CommandFailed(f"{command[0]}: {_NOT_FOUND}") from None
        except OSError as error:  # no process to be had at the moment
            raise CommandFailed(f"{command[0]}: {error}") from None
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"{command[0]}: no answer within {self.seconds:g} s") from None
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
            raise CommandFailed(said)
        return done.stdout

    def queue(self, names: Iterable[str]) -> dict[str, Row]:
        """Return what the queue says of this user's jobs with these names, by id; raises CommandFailed."""
        found: dict[str, Row] = {}
        for chunk in _chunks(sorted(names)):
            text = self.call(
                *("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"),
                *(f"--name={','.join(chunk)}", "--format=%i|%T|%r|%N|%S|%j"),
            )
            for job_id, state, reason, nodes, start, _name in _table(text, 6):
                found[job_id] = Row(state, reason, nodes, "" if start == "N/A" else start)
        return found

    def find(self, names: Iterable[str]) -> dict[str, str]:
        """Return the job id that the queue or the accounting knows under each of these names; raises CommandFailed."""
        found: dict[str, str] = {}
        for chunk in _chunks(sorted(names)):
            options = ("--noheader", "--states=all", f"--user={os.getuid()}", f"--name={','.join(chunk)}")
            for job_id, name in _table(self.call("squeue", *options, "--format=%F|%j"), 2):
                found.setdefault(name, job_id)
            forgotten = [name for name in chunk if name not in found]
            if forgotten and self.accounting is not False:
                # JobIDRaw would be an element's own id, which nobody else uses
                joined = ",".join(forgotten)
                text = self._account("--starttime=now-30days", f"--name={joined}", "--format=JobID,JobName") or ""
                for job_id, name in _table(text, 2):
                    found.setdefault(name, job_id.partition("_")[0])
        return found

    def ended(self, ids: Iterable[str]) -> dict[str, Row] | None:
        """Return what the accounting says of these jobs, by id; None where there is none. Raises CommandFailed."""
        found: dict[str, Row] = {}
        for chunk in _chunks(sorted({job_id.partition("_")[0] for job_id in ids})):
            text = self._account("--jobs=" + ",".join(chunk), "--format=JobID,State,ExitCode,NodeList")
            if text is None:
                return None
            for job_id, state, code, nodes in _table(text, 4):
                found[job_id] = Row(state.split()[0] if state else "", f"exit code {code}", nodes)
        return found

    def _account(self, *options: str) -> str | None:
        try:
            text = self.call("sacct", "--allocations", "--noheader", "--parsable2", *options)
        except CommandFailed as failure:
            if any(words in str(failure) for words in _NO_ACCOUNTING):
                self.accounting = False
                return None
            raise
        self.accounting = True
        return text

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs; raises CommandFailed, after all of them were tried."""
        said = []
        for chunk in _chunks(ids):
            try:
                self.call("scancel", *chunk)
            except CommandFailed as failure:  # one of them has ended already, perhaps
                said.append(str(failure))
        if said:
            raise CommandFailed("; ".join(said))

    def cancel_named(self, names: Iterable[str]) -> None:
        """Cancel all of this user's jobs with these names, where there are any; raises CommandFailed."""
        for name in names:
            self.call("scancel", f"--user={os.getuid()}", f"--name={name}")

    def broken(self, nodes: str) -> list[str]:
        """Return which of some nodes to keep away from: of several, those that SLURM has taken out of service."""
        if not re.search(r"[\[,]", nodes):
            return [nodes]
        options = ("--noheader", "--Node", f"--nodes={nodes}", "--states=down,drain,fail", "--format=%N")
        try:
            return sorted({name.strip() for name in self.call("sinfo", *options).splitlines()} - {""})
        except CommandFailed:
            return []

    def array_limit(self) -> int:
        """Return how many elements the site lets an array have; raises CommandFailed."""
        match = re.search(r"MaxArraySize\s*=\s*(\d+)", self.call("scontrol", "show", "config"))
        return max(1, int(match[1]) - 1) if match else 1000


def may_pass(message: str) -> bool:
    """Return whether what sbatch says does not speak against the job itself."""
    said = message.lower()
    return any(words in said for words in _PASSES) and not any(words in said for words in _STAYS)


def may_have_worked(message: str) -> bool:
    """Return whether sbatch may have submitted the job although it says that it failed."""
    return any(words in message.lower() for words in _IN_DOUBT)


def _table(text: str, width: int) -> Iterable[list[str]]:
    """Return the rows of what a command printed, without those that are no rows."""
    rows = (line.strip().split("|", width - 1) for line in text.splitlines())
    return (row for row in rows if len(row) == width)


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
