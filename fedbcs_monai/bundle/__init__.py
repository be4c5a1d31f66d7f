"""Bundle: write a finished run as a MONAI bundle."""

from fedbcs_monai.bundle.write import Bundled, write_bundle

__all__ = ["Bundled", "write_bundle"]
