"""NVFlare backend: jobs, controller and executor; importing it checks NVFlare's version."""

from importlib.metadata import PackageNotFoundError, version

from fedbcs_monai.errors import UserError

SUPPORTED = "2.9"
"""NVFlare's release, as far as its interfaces go."""


def check_version(found: str) -> None:
    """Refuse another release of NVFlare than the one whose interfaces are used here.

    Raises:
        UserError: both versions, and how to install the right one.
    """
    if not found.startswith(f"{SUPPORTED}."):
        raise UserError(
            f"NVFlare {found} is installed, and {SUPPORTED} is needed: pip install 'nvflare=={SUPPORTED}.*'"
        )


try:
    check_version(version("nvflare"))
except PackageNotFoundError:  # a site's trainer runs without NVFlare
    INSTALLED = False
else:
    INSTALLED = True
