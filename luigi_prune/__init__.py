"""luigi_prune: compare pruning methods from one experiment file to a report.

Importing this package makes its tasks known to `luigi --module luigi_prune` and its worker the one that runs them. It
loads neither torch nor matplotlib.
"""

from luigi_prune.tasks import Aggregate, Evaluate, Prune, Report, Retrain, RunExperiment, TrainBase
from luigi_prune.worker import install

__all__ = ["Aggregate", "Evaluate", "Prune", "Report", "Retrain", "RunExperiment", "TrainBase"]

install()
