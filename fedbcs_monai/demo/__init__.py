"""Demo: synthetic sites for a first run and for tests."""
