"""Hourglass, the training: fits on normal rows, calibrates on held-out ones, publishes one file."""

__version__ = "0.1.0"
