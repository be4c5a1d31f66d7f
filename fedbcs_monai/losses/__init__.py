"""Losses: features against prototypes and other networks, penalties on weights and predictions."""
