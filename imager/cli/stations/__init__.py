"""the commands of stations, and what ``rack`` needs of them."""
