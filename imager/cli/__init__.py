"""click commands, bars and JSON lines: the only place that prints or exits."""
