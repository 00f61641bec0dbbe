"""Side-by-side measurements of picloud-image and of what people use instead."""
