"""Whole runs on this machine: clusters of threads, of processes, and workers that join a running server."""
