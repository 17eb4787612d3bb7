"""What has to hold on a GPU; the same functions as `benchmarks/gpu/run.py`, which needs no pytest."""
