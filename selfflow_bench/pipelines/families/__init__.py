"""One module a family: what is particular to its published pipeline."""
