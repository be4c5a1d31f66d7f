"""Large images: segment pictures that exceed memory, strip by strip. Needs the extra `tiff`."""
