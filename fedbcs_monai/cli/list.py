"""``fedbcs list``: list tasks, sizes, methods, variants and benchmarks."""

from fedbcs_monai.cli.options import NORMAL, Verbosity


def list_available(*, verbosity: Verbosity = NORMAL) -> None:
    """List the tasks, sizes, methods, variants and benchmarks, each with one line about it."""
    from fedbcs_monai.catalog import available

    console = verbosity.console()
    for part, found in available().items():
        console.table(
            part.removesuffix("s"), part, {"name": "name", "about": "about"}, [list(row) for row in found.items()]
        )
