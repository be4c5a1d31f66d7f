"""Out of distribution: how far a scan lies from the cases of the training sites."""
