"""Losses: prototype and model contrast, and penalties on weights, features and predictions."""
