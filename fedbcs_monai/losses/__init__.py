"""Losses: segmentation, features against prototypes."""
