"""in: the rack's Salt master. out: which nodes have joined."""
