"""Builds the embedded data sets from named npm and Debian packages: `python -m selfflow_bench.data.build`.

Only for maintainers: the built files are committed, so nothing else in the suite imports this package.
"""
