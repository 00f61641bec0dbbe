"""in: an open disk or file. out: its bytes: aligned, several transfers at once, measured."""
