"""One command that checks luigi_prune on a GPU: `python benchmarks/gpu/run.py`. README.md has the recipe."""
