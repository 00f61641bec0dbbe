"""in: a rack, and computers with card readers that are minions of its Salt master. out: their cards, made."""
