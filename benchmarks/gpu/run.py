"""Check luigi_prune on a GPU: `python benchmarks/gpu/run.py --out results.json`. README.md has the recipe.

Every step runs in a process of its own with its own time limit. Facts are printed as they come, one a line (step, fact,
value, verdict), and are in the JSON file after each of them. Without a CUDA device the steps that need one are skipped
by name; --rehearse runs them on the CPU instead, which proves only that the command itself works. The exit code is 1
if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])  # the repository, not this folder

from benchmarks.gpu import driver  # noqa: E402
from benchmarks.gpu.facts import FAILED, MEASURED, OK, SKIPPED  # noqa: E402
from benchmarks.gpu.steps import MACHINE, STEPS, Step  # noqa: E402


class Record:
    """The JSON file, replaced as a whole after every fact."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.began = time.monotonic()
        self.content: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": {}, "facts": [], "steps": [],
        }  # fmt: skip

    def report(self, step: str, fact: dict[str, Any]) -> None:
        """Print a fact and keep it."""
        print(f"{step:<16} | {fact['name']:<52} | {fact['value']:<60} | {fact['verdict']}", flush=True)
        self.content["facts"].append({"step": step, **fact})
        if step == MACHINE.name:
            self.content["machine"].update(fact["numbers"])
        self.save()

    def save(self) -> None:
        """Write the file; whoever reads it finds a whole one."""
        self.content["seconds"] = round(time.monotonic() - self.began, 1)
        if self.path is not None:
            beside = self.path.with_name(self.path.name + ".part")
            beside.write_text(json.dumps(self.content, indent=1))
            os.replace(beside, self.path)


def chosen_steps(names: list[str]) -> list[Step]:
    """Return the steps of these names, all of them if there is none; exits for a name that is no step's."""
    known = {step.name: step for step in STEPS}
    for name in names:
        if name not in known:
            sys.exit(f"error: --only {name}: no such step; choose from {', '.join(known)}")
    return [step for step in STEPS if not names or step.name in names]


def table(steps: list[dict[str, Any]], seconds: float) -> str:
    """Return the final table and the facts that failed."""
    lines = [f"{'step':<18}{'verdict':<10}{'ok':>5}{'FAILED':>8}{'skipped':>9}{'measured':>10}{'seconds':>9}"]
    for step in steps:
        verdicts = [fact["verdict"] for fact in step["facts"]]
        ok, failures, skips, numbers = (verdicts.count(verdict) for verdict in (OK, FAILED, SKIPPED, MEASURED))
        counts = f"{ok:>5}{failures:>8}{skips:>9}{numbers:>10}"
        lines.append(f"{step['step']:<18}{step['verdict']:<10}{counts}{step['seconds']:>9.1f}")
    failed = [(step["step"], fact) for step in steps for fact in step["facts"] if fact["verdict"] == FAILED]
    lines += [f"FAILED  {name}: {fact['name']}: {fact['value']}" for name, fact in failed]
    lines.append(f"{'FAILED' if failed else 'nothing failed'}, {seconds:.0f} s in all")
    return "\n".join(lines)


def run(record: Record, steps: list[Step], *, minutes: float, rehearse: bool, lanes: int) -> list[dict[str, Any]]:
    """Run the machine's description and `steps`; return a record per step."""
    deadline = time.monotonic() + 60 * minutes
    cores = len(os.sched_getaffinity(0))
    common: dict[str, Any] = {"deadline": deadline, "cores": cores}
    done = driver.run_steps([MACHINE], record.report, device="cpu", lanes=1, **common)
    machine = record.content["machine"]
    # A machine that could not be described is no reason to try nothing.
    cuda = machine.get("cuda", True)
    record.content["device"] = "cuda:0" if cuda and not rehearse else "cpu"
    if rehearse:
        print("rehearsal: the steps for a GPU run on the CPU; nothing here says anything about a GPU")
    elif not cuda:
        done += [driver.skipped(step, "no CUDA device", record.report) for step in steps if step.cuda]
        steps = [step for step in steps if not step.cuda]
    done += driver.run_steps(steps, record.report, device=record.content["device"], lanes=lanes, **common)
    record.content["steps"] = [{key: step[key] for key in step if key != "facts"} for step in done]
    record.save()
    return done


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--minutes", type=float, default=5.75, help="after which nothing goes on (5.75)")
    parser.add_argument("--only", action="append", default=[], metavar="STEP", help="may be given several times")
    parser.add_argument("--list", action="store_true", help="name the steps and end")
    parser.add_argument("--lanes", type=int, default=0, help="steps at once, but those that measure time (cores / 4)")
    parser.add_argument("--stretch", type=float, default=1.0, help="multiplies the steps' limits, on a busy machine")
    parser.add_argument("--rehearse", action="store_true", help="run the GPU's steps on the CPU: checks the command")
    given = parser.parse_args()
    if given.list:
        for step in STEPS:
            print(f"{step.name:<18}{step.about} (at most {step.seconds:g} s{', needs CUDA' if step.cuda else ''})")
        return
    steps = [step._replace(seconds=step.seconds * given.stretch) for step in chosen_steps(given.only)]
    lanes = given.lanes or max(1, min(3, len(os.sched_getaffinity(0)) // 4))
    record = Record(given.out)
    done = run(record, steps, minutes=given.minutes, rehearse=given.rehearse, lanes=lanes)
    print("\n" + table(done, time.monotonic() - record.began))
    sys.exit(int(any(step["verdict"] == FAILED for step in done)))


if __name__ == "__main__":
    main()
