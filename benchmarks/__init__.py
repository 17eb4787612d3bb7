"""Measurements, each a script; nothing here is part of the package."""
