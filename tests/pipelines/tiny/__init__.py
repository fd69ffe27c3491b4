"""One tiny pipeline a family."""
