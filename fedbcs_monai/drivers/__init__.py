"""Drivers: how a broadcast reaches the sites and their updates come back."""
