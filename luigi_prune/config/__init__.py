"""Experiment files: schema, loading, checks and the generated reference."""
