"""The command line: parse, call one public function, say where the result is."""

from fedbcs_monai.cli.main import main

__all__ = ["main"]
