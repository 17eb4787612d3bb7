"""The cost of orchestration: time between two inline tasks, and time outside job functions.

    python benchmarks/overhead.py [--config sample/digits.yaml]

Runs the experiment with the inline backend into a temporary folder. The heavy half is imported before the clock
starts. Prints the median and the largest gap, and the share of seconds outside job functions.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import luigi

from luigi_prune.execution import job_run
from luigi_prune.execution.inline import InlineBackend
from luigi_prune.execution.job import ComputeSettings, Context, Job, Listener
from luigi_prune.workflow import luigi_integration
from luigi_prune.workflow.tasks import RunExperiment


class TimedBackend(InlineBackend):
    """The inline backend, which also records the time of every job function."""

    def __init__(self, settings: ComputeSettings):
        super().__init__(settings)
        self.spans: list[tuple[float, float]] = []

    def submit(self, job: Job, listener: Listener) -> None:
        """Run the job and record when its function began and ended."""
        listener.started()
        began = time.perf_counter()
        outcome = job_run.run(job, Context(threads=self.settings.threads, progress=listener.progressed))
        self.spans.append((began, time.perf_counter()))
        listener.ended(outcome)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="sample/digits.yaml")
    arguments = parser.parse_args()

    backend = TimedBackend(ComputeSettings(device="cpu"))
    luigi_integration.choose = lambda settings: backend  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        config = luigi.configuration.get_config()
        config.set("directories", "results", str(Path(folder) / "results"))
        began = time.perf_counter()
        succeeded: Any = luigi.build(
            [RunExperiment(config=arguments.config)], local_scheduler=True, log_level="WARNING"
        )
        wall = time.perf_counter() - began
    if not succeeded:
        raise SystemExit("the experiment failed")
    inside = sum(end - start for start, end in backend.spans)
    pairs = zip(backend.spans, backend.spans[1:], strict=False)
    gaps = [1000 * (start - end) for (_, end), (start, _) in pairs]
    print(f"{len(backend.spans)} tasks in {wall:.1f} s, {inside:.1f} s inside job functions")
    print(f"gap between tasks: median {statistics.median(gaps):.1f} ms, largest {max(gaps):.1f} ms")
    print(f"outside job functions / all: {(wall - inside) / wall:.4f}")


if __name__ == "__main__":
    main()
