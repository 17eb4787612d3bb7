"""Reports of runs whose tasks failed, if luigi.cfg allows them: `[report] allow_partial`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from luigi_prune.workflow.tasks import RunExperiment


def write_partial_reports(experiments: Iterable[RunExperiment], note: Callable[[str], None]) -> None:
    """Write the reports of experiments that lack one, from the results that exist; each outcome is a line of `note`.

    In a process of its own: the driver loads neither torch nor matplotlib, and an error there must not change the
    exit code of the run.
    """
    for experiment in experiments:
        if all(report.complete() for report in experiment.reports):
            continue
        command = [sys.executable, "-m", "luigi_prune", "report", experiment.config]
        ended = subprocess.run([*command, *["--smoke"] * experiment.smoke], capture_output=True, text=True, check=False)
        lines = ended.stdout.splitlines() if not ended.returncode else ended.stderr.splitlines()[-1:]
        for line in lines:
            note(line if not ended.returncode else f"No partial report: {line}")
