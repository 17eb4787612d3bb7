"""luigi_prune: compare pruning methods from one experiment file to a report.

Importing this package registers its tasks and its worker for `luigi --module luigi_prune`. It loads neither torch nor
matplotlib.
"""

from luigi_prune.workflow.luigi_integration import install
from luigi_prune.workflow.tasks import Aggregate, Evaluate, Prune, Report, Retrain, RunExperiment, TrainBase

__all__ = ["Aggregate", "Evaluate", "Prune", "Report", "Retrain", "RunExperiment", "TrainBase"]

install()
