"""What experiment files would run: experiments, tasks and epochs of every file below a folder, or why it is refused.

python benchmarks/planned.py FOLDER [--results planned.jsonl]

Includes are relative to FOLDER. Prints the tables of docs/parameter_files.md (FOLDER: the reference's repository) and
docs/papers.md (`luigi_prune/configs/paper`); nothing is trained, and no data set has to be there. With --results, rows
are kept in a file and not computed again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from luigi_prune.commands.plan import to_run
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.config.schema import Experiment
from luigi_prune.errors import LuigiPruneError
from luigi_prune.workflow.settings import directories_for
from luigi_prune.workflow.tasks import Report


def planned(experiments: list[Experiment]) -> dict[str, Any]:
    """Return the number of experiments, and the tasks and epochs of a first run of all of them."""
    tasks = to_run([Report.of(each, directories_for(each)) for each in experiments])
    families = Counter(task.task_family for task, _ in tasks)
    first = experiments[0]
    retrained = max(0, first.retraining.num_epochs - first.retraining.start_epoch)
    epochs = families["TrainBase"] * first.training.num_epochs + families["Retrain"] * retrained
    return {"experiments": len(experiments), "tasks": len(tasks), "epochs": epochs}


def row_of(file: str) -> dict[str, Any]:
    """Return what `file` plans, or its `refusal`, one line without the file's name."""
    try:
        return {"file": file, **planned(load_experiments(file))}
    except LuigiPruneError as error:
        line = str(error).splitlines()[0]
        return {"file": file, "refusal": line.partition(": ")[2] if line.startswith(file) else line}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    results = options.results.resolve() if options.results else None
    rows = {}
    if results and results.exists():
        rows = {row["file"]: row for row in map(json.loads, results.read_text().splitlines())}
    os.chdir(options.folder)
    for file in sorted(map(str, Path().rglob("*.y*ml"))):
        if file not in rows:
            rows[file] = row_of(file)
            if results:
                with open(results, "a") as kept:
                    kept.write(json.dumps(rows[file]) + "\n")
    print("| file | experiments | tasks | epochs |\n|---|---:|---:|---:|")
    for file, row in rows.items():
        if "tasks" in row:
            print(f"| `{file}` | {row['experiments']} | {row['tasks']:,} | {row['epochs']:,} |")
    print("\n| refused | why |\n|---|---|")
    for file, row in rows.items():
        if "refusal" in row:
            print(f"| `{file}` | {row['refusal']} |")


if __name__ == "__main__":
    main()
