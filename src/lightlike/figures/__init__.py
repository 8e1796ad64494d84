"""Figures of results: each a matplotlib figure that also holds its numbers as columns."""
