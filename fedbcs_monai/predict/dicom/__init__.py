"""DICOM: series read as volumes, and masks written as objects that refer to them. Needs the extra `dicom`."""
