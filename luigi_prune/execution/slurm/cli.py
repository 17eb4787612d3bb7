"""SLURM's commands as functions. Every call has a timeout, is counted, and may raise CommandFailed."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

CHUNK = 100  # ids or names on one command line
_SHOWN = 6  # nodes in a message
# messages of sbatch that may be temporary; its exit code is 1 whatever the reason
_TEMPORARY = (
    *("limit", "timed out", "temporarily", "try again", "busy", "too many", "standby", "not responding"),
    *("unable to contact", "connect", "communication", "zero bytes", "no answer", "no space", "quota exceeded"),
)
# ... but not if the limit is one of the job itself
_PERMANENT = ("perjob", "per_job", "wall", "time limit is invalid", "timelimit", "nodelimit")
# ... after which the job may have been submitted all the same
_UNCERTAIN = ("timed out", "connection", "communication", "zero bytes", "no answer", "no space", "quota exceeded")

# states of nodes that take no jobs
_OUT_OF_SERVICE = ("down", "drain", "fail", "maint", "powered", "powering", "reboot", "future", "perfctrs", "unknown")


class CommandFailed(Exception):
    """A SLURM command failed or timed out; the text is the command's message."""

    def __init__(self, message: str, ended: bool = True):
        """`ended` is False if the command was killed because it did not end in time."""
        super().__init__(message)
        self.ended = ended


class CommandMissing(CommandFailed):
    """A SLURM command is not installed here."""


@dataclass(frozen=True)
class Row:
    """State of one job, from squeue or sacct (array elements have ids like 12_3)."""

    state: str  # as SLURM spells it
    reason: str = ""  # reason for waiting, or exit code
    nodes: str = ""
    start: str = ""  # actual or expected start
    priority: str = ""  # 0: held, whoever or whatever holds it


class Client:
    """Calls SLURM's commands and counts the calls."""

    def __init__(self, seconds: float = 60.0):
        """`seconds` is the timeout of one command."""
        self.seconds = seconds
        self.calls: Counter[str] = Counter()
        self.accounting: bool | None = None  # whether sacct works; None if unknown

    def call(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
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
                env=environment,
            )
        except FileNotFoundError:
            raise CommandMissing(f"{command[0]}: not found; is SLURM installed here?") from None
        except OSError as error:  # e.g. no process can be started at the moment
            raise CommandFailed(f"{command[0]}: {error}") from None
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"{command[0]}: no answer within {self.seconds:g} s", ended=False) from None
        if done.returncode:
            message = " ".join((done.stderr or done.stdout).split())
            raise CommandFailed(message or f"exit code {done.returncode}")
        return done.stdout

    def queue(self, names: Iterable[str], everybody: bool = False) -> dict[str, Row]:
        """Return the rows of this user's, or everybody's, jobs with these names, by id; raises CommandFailed."""
        rows: dict[str, Row] = {}
        for chunk in _chunks(sorted(names)):
            text = self.call(
                *("squeue", "--noheader", "--array", "--states=all", *_owner("--user", everybody)),
                *(f"--name={','.join(chunk)}", "--format=%i|%T|%r|%N|%S|%Q|%j"),
            )
            for job_id, state, reason, nodes, start, priority, _name in _table(text, 7):
                rows[job_id] = Row(state, reason, nodes, "" if start == "N/A" else start, priority)
        return rows

    def find_ids(self, names: Iterable[str], everybody: bool = False) -> dict[str, str]:
        """Return name -> job id for the names in the queue or the accounting; raises CommandFailed."""
        ids: dict[str, str] = {}
        for chunk in _chunks(sorted(names)):
            options = ("--noheader", "--states=all", *_owner("--user", everybody), f"--name={','.join(chunk)}")
            for job_id, name in _table(self.call("squeue", *options, "--format=%F|%j"), 2):
                ids.setdefault(name, job_id)
            missing = [name for name in chunk if name not in ids]
            if missing and self.accounting is not False:
                # not JobIDRaw: that is an internal id of the element
                joined = ",".join(missing)
                options = ("--starttime=now-30days", *(["--allusers"] if everybody else []), f"--name={joined}")
                text = self._account(*options, "--format=JobID,JobName") or ""
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
        except CommandMissing:
            self.accounting = False
            return None
        except CommandFailed:
            if self.accounting is None and not self._has_accounting():
                self.accounting = False
                return None
            raise
        self.accounting = True
        return text

    def _has_accounting(self) -> bool:
        """Return whether the site stores records of jobs; True if that is unknown, since sacct may work later."""
        try:
            return self.site("AccountingStorageType") not in ("accounting_storage/none", "(null)", "none")
        except CommandFailed:
            return True

    def site(self, key: str) -> str:
        """Return a value of the site's configuration, "" if it has no such key; raises CommandFailed."""
        match = re.search(rf"^{key}\s*=\s*(.*?)\s*$", self.call("scontrol", "show", "config"), re.M)
        return match[1] if match else ""

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
        size = self.site("MaxArraySize")
        return max(1, int(size) - 1) if size.isdigit() else 1000

    def controller_responds(self) -> bool:
        """Return whether the site's controller is reachable."""
        try:
            self.call("scontrol", "ping")
        except CommandFailed:
            return False
        return True

    def unavailable(self, partition: str = "") -> str:
        """Return the nodes of a partition (all partitions without one) that take no jobs now, as "drained: n1"; or "".

        Raises CommandFailed. The partition itself is named if it is not up.
        """
        options = ["--noheader", "--Node", *([f"--partition={partition}"] if partition else [])]
        nodes: dict[str, set[str]] = {}
        for node, state, name, available in _table(self.call("sinfo", *options, "--format=%N|%T|%R|%a"), 4):
            base = re.sub(r"[^a-z_]", "", state.lower())
            if base.startswith(_OUT_OF_SERVICE) or state.endswith("*"):
                nodes.setdefault(base, set()).add(node)
            if available != "up":
                nodes.setdefault(f"partition {available}", set()).add(name)
        return "; ".join(f"{state}: {_listed(sorted(names))}" for state, names in sorted(nodes.items()))


def is_temporary(failure: CommandFailed) -> bool:
    """Return whether sbatch may accept the same job later."""
    message = str(failure).lower()
    known = any(text in message for text in _TEMPORARY) and not any(text in message for text in _PERMANENT)
    return known or not failure.ended


def may_have_submitted(failure: CommandFailed) -> bool:
    """Return whether sbatch may have submitted the job although it failed."""
    return not failure.ended or any(text in str(failure).lower() for text in _UNCERTAIN)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _owner(option: str, everybody: bool) -> list[str]:
    return [] if everybody else [f"{option}={os.getuid()}"]


def _table(text: str, width: int) -> Iterable[list[str]]:
    """Return the rows of a command's output that have `width` columns; other lines are messages."""
    rows = (line.strip().split("|", width - 1) for line in text.splitlines())
    return (row for row in rows if len(row) == width)


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
