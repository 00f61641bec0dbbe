"""Errors, units, subprocesses, progress, durable files: knows nothing of cards."""
