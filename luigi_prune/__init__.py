"""luigi_prune: compare pruning methods from one experiment file to a report.

Importing this package makes its tasks known to `luigi --module luigi_prune` and its worker the one that runs them. It
loads neither torch nor matplotlib.
"""

from luigi_prune.workflow.luigi_integration import install
from luigi_prune.workflow.tasks import Aggregate, Evaluate, Prune, Report, Retrain, RunExperiment, TrainBase

__all__ = ["Aggregate", "Evaluate", "Prune", "Report", "Retrain", "RunExperiment", "TrainBase"]

install()
