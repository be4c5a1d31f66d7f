"""DICOM: read series as volumes, and write masks as SEG or RTSTRUCT. Needs the extra `dicom`."""
