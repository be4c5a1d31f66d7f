"""Regions: pictures too large for memory, segmented strip by strip. Needs the extra `tiff`."""
