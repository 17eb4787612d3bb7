"""What sbatch, squeue, sacct, scancel and scontrol of a pretended SLURM do, as scripts on PATH run it.

The state is one JSON file: jobs (id -> name, script, elements), what the accounting knows, faults to be had, and every
command that was called. A command that has a fault waiting says that and fails.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def opened(path: str) -> Iterator[dict[str, Any]]:
    """Give the state to one process at a time, and write down what it made of it."""
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        state = json.load(file)
        yield state
        text = json.dumps(state)
        file.seek(0)
        file.truncate()
        file.write(text)


def main(path: str, command: str, arguments: list[str]) -> int:
    """Run a command; return its exit code."""
    if command == "srun":
        first = next(n for n, text in enumerate(arguments) if text[0] != "-" and arguments[n - 1] != "--output")
        os.execvp(arguments[first], arguments[first:])
    with opened(path) as state:
        state["calls"].append([command, *arguments])
        fault = _fault(state, command)
        if fault and not fault["silently"]:
            print(f"{command}: error: {fault['says']}", file=sys.stderr)
            return 1
        print(_COMMANDS[command](state, arguments), end="")
        if fault:  # it was done, and the answer is lost
            print(f"{command}: error: {fault['says']}", file=sys.stderr)
            return 1
    return 0


def _fault(state: dict[str, Any], command: str) -> dict[str, Any] | None:
    for fault in state["faults"]:
        if fault["command"] == command and fault["times"] > 0:
            fault["times"] -= 1
            return fault
    return None


def _option(arguments: list[str], name: str, default: str = "") -> str:
    return next((text.partition("=")[2] for text in arguments if text.startswith(f"--{name}=")), default)


def _sbatch(state: dict[str, Any], arguments: list[str]) -> str:
    with open(arguments[-1]) as file:
        script = file.read()
    if "--test-only" in arguments:
        return ""
    name = re.search(r"^#SBATCH --job-name=(\S+)", script, re.M)
    array = re.search(r"^#SBATCH --array=0-(\d+)", script, re.M)
    job_id = str(state["next_id"])
    state["next_id"] += 1
    element = {"state": "PENDING", "reason": "Priority", "nodes": ""}
    ids = [f"{job_id}_{index}" for index in range(int(array[1]) + 1)] if array else [job_id]
    state["jobs"][job_id] = {"name": name[1] if name else "", "script": script, "directory": os.getcwd()}
    state["queue"].update({each: dict(element) for each in ids})
    return f"{job_id}\n"


def _squeue(state: dict[str, Any], arguments: list[str]) -> str:
    names, form = _option(arguments, "name").split(","), _option(arguments, "format")
    lines = []
    for each, row in state["queue"].items():
        job_id = each.partition("_")[0]
        name = state["jobs"][job_id]["name"]
        if name in names:
            values = {
                "%i": each,
                "%F": job_id,
                "%j": name,
                "%S": row.get("start", "N/A"),
                "%Q": row.get("priority", "1"),
            }
            values |= {"%T": row["state"], "%r": row["reason"], "%N": row["nodes"]}
            lines.append("|".join(values[word] for word in form.split("|")) + "\n")
    return "".join(lines)


def _sacct(state: dict[str, Any], arguments: list[str]) -> str:
    ids, names = _option(arguments, "jobs").split(","), _option(arguments, "name").split(",")
    lines = []
    for each, row in state["accounting"].items():
        job_id = each.partition("_")[0]
        name = state["jobs"][job_id]["name"]
        if job_id in ids or name in names:
            values = {
                "JobID": each,
                "State": row["state"],
                "ExitCode": "0:0",
                "NodeList": row["nodes"],
                "JobName": name,
            }
            lines.append("|".join(values[word] for word in _option(arguments, "format").split(",")) + "\n")
    return "".join(lines)


def _scancel(state: dict[str, Any], arguments: list[str]) -> str:
    name = _option(arguments, "name")
    for each, row in state["queue"].items():
        job_id = each.partition("_")[0]
        if {each, job_id} & set(arguments) or (name and state["jobs"][job_id]["name"] == name):
            row["state"] = "CANCELLED"
    return ""


def _scontrol(state: dict[str, Any], arguments: list[str]) -> str:
    if arguments[:2] == ["show", "config"]:
        refusals = [fault["says"] for fault in state["faults"] if fault["command"] == "sacct"]
        storage = "none" if any("accounting storage is disabled" in text for text in refusals) else "slurmdbd"
        return (
            f"AccountingStorageType   = accounting_storage/{storage}\n"
            f"SLURM_VERSION = 0\nMaxArraySize            = {state['max_array_size']}\n"
        )
    if arguments[0] == "requeue":
        state["queue"][arguments[1]] |= {"state": "PENDING", "reason": "BeginTime", "nodes": ""}
    return ""


def _sinfo(state: dict[str, Any], arguments: list[str]) -> str:
    if "--format=%N|%T|%R|%a" in arguments:
        return "".join(f"{node}|drained|main|up\n" for node in state["broken"])
    return "".join(f"{node}\n" for node in state["broken"])


_COMMANDS = {
    "sbatch": _sbatch,
    "squeue": _squeue,
    "sacct": _sacct,
    "scancel": _scancel,
    "scontrol": _scontrol,
    "sinfo": _sinfo,
}
