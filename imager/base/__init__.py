"""Errors, units, subprocesses, progress, durable files: what every other wing may use."""
