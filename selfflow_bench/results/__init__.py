"""Records of runs and what is made of them: verification, comparison, leaderboard, plots. Knows nothing of torch."""
