"""The regression gate: does the code train as it did? Runs the smoke tier in this process, writes no records."""
