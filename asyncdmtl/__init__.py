"""Coded distributed multi-task learning over TCP."""

__version__ = "0.1.0"
