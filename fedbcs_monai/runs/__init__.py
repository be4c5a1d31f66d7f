"""Runs: set up a training run, write its folder, and read it back."""
