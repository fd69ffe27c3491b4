"""Reference benchmark suite for Self-Flow (arXiv 2603.06507): matched runs, honest evaluation, a leaderboard."""

__version__ = "0.1.0"
