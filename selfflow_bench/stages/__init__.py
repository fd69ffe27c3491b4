"""The stages of one run: data, training, evaluation. Pure orchestration of the packages below.

Know nothing of processes and signals (see `selfflow_bench.worker`), of records or of engines.
"""
