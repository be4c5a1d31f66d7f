"""NVFlare: the same sites and the same server, in the processes and behind the certificates of NVIDIA FLARE."""
