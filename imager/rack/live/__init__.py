"""in: what a run reports. out: what others may see of it while it is at work."""
