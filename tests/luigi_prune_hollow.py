"""For `luigi --module`: luigi_prune, whose jobs compute next to nothing and need no torch (tests/hollow_jobs.py)."""

from luigi_prune.execution.local import local_backend
from luigi_prune.execution.local.fork_server import WarmServer
from luigi_prune.workflow import tasks

for family in (tasks.TrainBase, tasks.Prune, tasks.Retrain, tasks.Evaluate, tasks.Aggregate, tasks.Report):
    family.function = "tests.hollow_jobs:compute"
local_backend._new_server = lambda: WarmServer(["tests.hollow_jobs"])
