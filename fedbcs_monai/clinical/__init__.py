"""Clinical use: new scans in, masks out."""
