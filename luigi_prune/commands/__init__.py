"""The commands of `python -m luigi_prune`. Each module adds its parsers; none of them starts a job."""
