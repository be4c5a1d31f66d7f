"""Demo: synthetic sites for the first five minutes, and for tests."""
