"""Benchmark scripts; not part of the package."""
