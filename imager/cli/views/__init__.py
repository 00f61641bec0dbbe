"""in: a value. out: the lines or the drawing that a person sees of it."""
