"""What a terminal takes: its width, its letters, its colours, its bell."""
