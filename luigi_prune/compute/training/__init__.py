"""Training: a loop that resumes at any step, with schedules, checkpoints, several processes, several networks."""

from luigi_prune.compute.training.checkpoint import discard
from luigi_prune.compute.training.loop import train
from luigi_prune.compute.training.progress import EpochRecord, TrainResult
from luigi_prune.compute.training.together import Training, train_together
from luigi_prune.errors import Interrupted

__all__ = ["EpochRecord", "Interrupted", "TrainResult", "Training", "discard", "train", "train_together"]
