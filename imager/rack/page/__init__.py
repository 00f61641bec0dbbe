"""in: what is known of a rack and of the run at work. out: a page that keeps itself up to date."""
