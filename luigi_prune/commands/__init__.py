"""The commands of `python -m luigi_prune`, one module each or per group; none starts a job."""
