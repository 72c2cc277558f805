"""Scores of sets of samples, and the statistics behind them."""
