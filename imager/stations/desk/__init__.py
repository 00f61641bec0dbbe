"""in: orders of a head. out: cards, made here by the engine of ``rack flash``; their reports."""
