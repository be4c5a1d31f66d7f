"""Backends: run a federation in one process, behind MONAI's `ClientAlgo`, or on NVFlare."""
