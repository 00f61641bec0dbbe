"""in: many nodes and many cards. out: a rack that joined."""
