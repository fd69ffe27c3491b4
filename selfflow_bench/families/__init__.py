"""One module per model family. `base` says what a family is."""
