"""What an update of the pages costs luigid: `python -m benchmarks.pages [TASKS]` (50,000 tasks of which half are done).

Prints CPU seconds of this process, and bytes of the answers before compression.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from luigi_prune.results.run_records import RecordedExperiment, RecordedTask, experiment_path, write_record
from luigi_prune.web import answers, watched_results

RATIOS, NETS, REPETITIONS = 17, 10, 10
STAGES = ("Prune", "Retrain", "Evaluate")


def experiment(tasks: int) -> RecordedExperiment:
    """Return an experiment of about this many tasks."""
    rows = [RecordedTask(family="TrainBase", key=f"{0:064x}", title="TrainBase", path="D/n/TrainBase/net0.h5")]
    methods = [f"Method{number}" for number in range(max(1, tasks // (RATIOS * NETS * REPETITIONS * len(STAGES))))]
    for method, net, repetition, ratio in itertools.product(methods, range(NETS), range(REPETITIONS), range(RATIOS)):
        for stage in STAGES:
            place = len(rows)
            row = RecordedTask(
                family=stage,
                key=f"{place:012x}{0:052x}",
                title=f"{stage} n {method} keep {ratio} net{net} rep{repetition}",
                path=f"D/n/{method}/net{net}-rep{repetition}/keep{ratio}-{stage}-{place:012x}.h5",
                method=method,
                keep_ratio=1 / (ratio + 1.5),
                net=net,
                repetition=repetition,
                inputs=(place - 1 if stage != "Prune" else 0,),
            )
            rows.append(row)
    labels = {method: method for method in methods}
    more: dict[str, Any] = {"keep_ratios": (), "command": "", "settings": {}, "tasks": tuple(rows)}
    return RecordedExperiment(name="many", key="f" * 64, dataset="D", network="n", labels=labels, **more)


def measured(name: str, function: Callable[[], Any]) -> None:
    """Print how long a call takes, and how large its answer is."""
    began = time.process_time()
    answer = function()
    seconds = time.process_time() - began
    size = f"{len(json.dumps(answer)):,} bytes" if answer is not None else ""
    print(f"{name:24}{seconds:7.3f} s  {size}")


def main(tasks: int) -> None:
    """Write an experiment whose first half is done, and measure the answers to a browser."""
    with tempfile.TemporaryDirectory() as folder:
        many = experiment(tasks)
        print(f"{len(many.tasks):,} tasks")
        for number, task in enumerate(many.tasks):
            path = Path(folder) / task.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if number < len(many.tasks) // 2:
                path.touch()
        measured("record written", lambda: write_record(experiment_path(folder, many.name, many.key), many))
        watched_results._REFRESH_SECONDS = 0.0
        watched = watched_results.WatchedResults(folder)
        measured("first update", lambda: watched.read() and None)
        time.sleep(3)  # folders that have just changed are listed again
        measured("update", lambda: watched.read() and None)
        watched_results._REFRESH_SECONDS = 60.0
        watched.read()
        name = many.key[:12]
        measured("answer: experiment", lambda: answers.whole_experiment(0, watched, name))
        measured("answer: state", lambda: answers.experiment_state(0, watched, name))
        measured("answer: overview", lambda: answers.overview([watched]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
