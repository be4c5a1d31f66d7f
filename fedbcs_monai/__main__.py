"""Runs the command line as `python -m fedbcs_monai`, for environments without `fedbcs` on the PATH."""

import sys

from fedbcs_monai.cli import main

if __name__ == "__main__":
    sys.exit(main())
