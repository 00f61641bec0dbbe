"""in: a version of Salt. out: its source from PyPI, proven by its digest."""
