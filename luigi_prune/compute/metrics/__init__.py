"""Losses and metrics, and the evaluation of a network by them."""
