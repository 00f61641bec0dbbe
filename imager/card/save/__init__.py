"""in: a card of any system. out: an image file of what its filesystems use, and what was lost."""
