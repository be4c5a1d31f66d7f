"""Bundle: a finished run as a MONAI bundle, for hosts and for other sites."""

from fedbcs_monai.bundle.write import Bundled, write_bundle

__all__ = ["Bundled", "write_bundle"]
