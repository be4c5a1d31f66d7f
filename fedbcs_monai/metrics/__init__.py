"""Metrics: how good a mask is, and tables of it."""
