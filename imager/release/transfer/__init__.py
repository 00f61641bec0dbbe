"""in: a URL. out: its bytes: resumed after a break, bounded in size and time."""
