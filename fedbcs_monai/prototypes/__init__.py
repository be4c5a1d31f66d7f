"""Prototypes: pool, cluster and match class features."""
