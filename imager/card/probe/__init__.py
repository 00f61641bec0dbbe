"""in: a claimed card. out: whether it holds as much as it says, asked before the long write."""
