"""SLURM's commands as functions. Every call has a timeout, is counted, and may raise CommandFailed."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

CHUNK = 100  # ids or names on one command line
_NOT_FOUND = "not found; is SLURM installed here?"
# messages of sacct if there is no accounting at all; all others may be temporary
_NO_ACCOUNTING = ("accounting storage is disabled", "accounting_storage/none", _NOT_FOUND)
# messages of sbatch that may be temporary
_TEMPORARY = (
    *("limit", "timed out", "temporarily", "try again", "busy", "too many", "standby", "not responding"),
    *("unable to contact", "connect", "communication", "zero bytes", "no answer", "no space", "quota exceeded"),
)
# ... but not if the limit is one of the job itself
_PERMANENT = ("perjob", "per_job", "wall", "time limit is invalid", "timelimit", "nodelimit")
# ... after which the job may have been submitted all the same
_UNCERTAIN = ("timed out", "connection", "communication", "zero bytes", "no answer", "no space", "quota exceeded")


class CommandFailed(Exception):
    """A SLURM command failed or timed out; the text is the command's message."""


@dataclass(frozen=True)
class Row:
    """State of one job, from squeue or sacct (array elements have ids like 12_3)."""

    state: str  # as SLURM spells it
    reason: str = ""  # reason for waiting, or exit code
    nodes: str = ""
    start: str = ""  # actual or expected start


class Client:
    """Calls SLURM's commands and counts the calls."""

    def __init__(self, seconds: float = 60.0):
        """`seconds` is the timeout of one command."""
        self.seconds = seconds
        self.calls: Counter[str] = Counter()
        self.accounting: bool | None = None  # whether sacct works; None if unknown

    def call(self, *command: str) -> str:
        """Return a command's output; raises CommandFailed."""
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
        except OSError as error:  # e.g. no process can be started at the moment
            raise CommandFailed(f"{command[0]}: {error}") from None
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"{command[0]}: no answer within {self.seconds:g} s") from None
        if done.returncode:
            message = " ".join((done.stderr or done.stdout).split())
            raise CommandFailed(message or f"exit code {done.returncode}")
        return done.stdout

    def queue(self, names: Iterable[str]) -> dict[str, Row]:
        """Return the rows of this user's jobs with these names in the queue, by id; raises CommandFailed."""
        rows: dict[str, Row] = {}
        for chunk in _chunks(sorted(names)):
            text = self.call(
                *("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"),
                *(f"--name={','.join(chunk)}", "--format=%i|%T|%r|%N|%S|%j"),
            )
            for job_id, state, reason, nodes, start, _name in _table(text, 6):
                rows[job_id] = Row(state, reason, nodes, "" if start == "N/A" else start)
        return rows

    def find_ids(self, names: Iterable[str]) -> dict[str, str]:
        """Return name -> job id for the names known to the queue or the accounting; raises CommandFailed."""
        ids: dict[str, str] = {}
        for chunk in _chunks(sorted(names)):
            options = ("--noheader", "--states=all", f"--user={os.getuid()}", f"--name={','.join(chunk)}")
            for job_id, name in _table(self.call("squeue", *options, "--format=%F|%j"), 2):
                ids.setdefault(name, job_id)
            missing = [name for name in chunk if name not in ids]
            if missing and self.accounting is not False:
                # not JobIDRaw: that is an internal id of the element
                joined = ",".join(missing)
                text = self._account("--starttime=now-30days", f"--name={joined}", "--format=JobID,JobName") or ""
                for job_id, name in _table(text, 2):
                    ids.setdefault(name, job_id.partition("_")[0])
        return ids

    def records(self, ids: Iterable[str]) -> dict[str, Row] | None:
        """Return the accounting's records of these jobs, by id; None without accounting. Raises CommandFailed."""
        records: dict[str, Row] = {}
        for chunk in _chunks(sorted({job_id.partition("_")[0] for job_id in ids})):
            text = self._account("--jobs=" + ",".join(chunk), "--format=JobID,State,ExitCode,NodeList")
            if text is None:
                return None
            for job_id, state, code, nodes in _table(text, 4):
                records[job_id] = Row(state.split()[0] if state else "", f"exit code {code}", nodes)
        return records

    def _account(self, *options: str) -> str | None:
        try:
            text = self.call("sacct", "--allocations", "--noheader", "--parsable2", *options)
        except CommandFailed as failure:
            if any(text in str(failure) for text in _NO_ACCOUNTING):
                self.accounting = False
                return None
            raise
        self.accounting = True
        return text

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs; raises CommandFailed after trying all of them."""
        messages = []
        for chunk in _chunks(ids):
            try:
                self.call("scancel", *chunk)
            except CommandFailed as failure:  # one of them may have ended already
                messages.append(str(failure))
        if messages:
            raise CommandFailed("; ".join(messages))

    def try_cancel(self, ids: Iterable[str]) -> None:
        """Cancel jobs, skipping empty ids; logs a failure."""
        try:
            self.cancel([job_id for job_id in ids if job_id])
        except CommandFailed as failure:
            logger.warning("scancel: %s", failure)

    def cancel_named(self, names: Iterable[str]) -> None:
        """Cancel all of this user's jobs with these names, if any; raises CommandFailed."""
        for name in names:
            self.call("scancel", f"--user={os.getuid()}", f"--name={name}")

    def failed_nodes(self, nodes: str) -> list[str]:
        """Return the nodes of a failed job to avoid: a single node, or of several those that SLURM reports as down."""
        if not re.search(r"[\[,]", nodes):
            return [nodes]
        options = ("--noheader", "--Node", f"--nodes={nodes}", "--states=down,drain,fail", "--format=%N")
        try:
            return sorted({name.strip() for name in self.call("sinfo", *options).splitlines()} - {""})
        except CommandFailed:
            return []

    def array_limit(self) -> int:
        """Return the number of elements that an array may have; raises CommandFailed."""
        match = re.search(r"MaxArraySize\s*=\s*(\d+)", self.call("scontrol", "show", "config"))
        return max(1, int(match[1]) - 1) if match else 1000


def is_temporary(message: str) -> bool:
    """Return whether sbatch may accept the same job later, given its error message."""
    message = message.lower()
    return any(text in message for text in _TEMPORARY) and not any(text in message for text in _PERMANENT)


def may_have_submitted(message: str) -> bool:
    """Return whether sbatch may have submitted the job in spite of its error message."""
    return any(text in message.lower() for text in _UNCERTAIN)


def _table(text: str, width: int) -> Iterable[list[str]]:
    """Return the rows of a command's output that have `width` columns; other lines are messages."""
    rows = (line.strip().split("|", width - 1) for line in text.splitlines())
    return (row for row in rows if len(row) == width)


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
