"""Metrics: scores of masks, and tables of scores."""
