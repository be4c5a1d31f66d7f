"""Out-of-distribution detection: distance of an image to the cases of the training sites."""
