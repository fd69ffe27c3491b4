"""The commands, a module for each group of them. Every one adds its commands to the parser that `cli` makes."""
