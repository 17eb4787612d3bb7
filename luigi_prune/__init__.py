"""Pruning experiments."""
