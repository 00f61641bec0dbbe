"""in: a rack's folder. out: the keys of its nodes: made once, kept, exported, replaced."""
