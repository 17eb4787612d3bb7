"""For `luigi --module`: luigi_prune with the jobs of tests/light_jobs.py, which import no torch."""

from luigi_prune.execution.local.fork_server import WarmServer
from luigi_prune.workflow import tasks

WarmServer.__init__.__defaults__ = (("tests.light_jobs",),)
tasks.TrainBase.function = "tests.light_jobs:train"
tasks.Report.function = "tests.light_jobs:report"
for task in (tasks.Prune, tasks.Retrain, tasks.Evaluate, tasks.Aggregate):
    task.function = "tests.light_jobs:combine"
