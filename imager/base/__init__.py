"""Errors, units, subprocesses, progress, durable files, the table of boards: knows no cards."""
