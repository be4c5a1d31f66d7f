"""Command line: each command parses its options, calls one public function and prints where the result is."""

from fedbcs_monai.cli.main import main

__all__ = ["main"]
