"""Prototypes: features pooled per class, and clustered."""
