"""One module per method of the comparison. `base` says what a method is."""
