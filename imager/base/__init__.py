"""Errors, units, subprocesses, progress, boards, durable files: what every other wing may use."""
