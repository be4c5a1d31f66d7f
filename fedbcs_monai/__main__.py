"""Main module: `python -m fedbcs_monai` is the command `fedbcs`, also where no such name is on the PATH."""

import sys

from fedbcs_monai.cli import main

if __name__ == "__main__":
    sys.exit(main())
