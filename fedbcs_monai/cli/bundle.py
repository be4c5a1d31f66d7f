"""``fedbcs bundle``: write a finished run as a MONAI bundle."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fedbcs_monai.cli.options import NORMAL, OUTPUT, Model, Trust, Verbosity


def bundle(
    run: Path,
    /,
    *,
    output: Annotated[Path, OUTPUT],
    zipped: Annotated[bool, Parameter(name="--zip")] = False,
    model: Model = "selected",
    site: str | None = None,
    about: Path | None = None,
    overwrite: bool = False,
    trust: Trust = (),
    verbosity: Verbosity = NORMAL,
) -> None:
    """Write a finished run as a MONAI bundle: weights, TorchScript, ONNX, workflows and model card.

    Args:
        run: run folder
        output: folder; its name is the bundle's
        zipped: write OUTPUT.zip with the folder inside, instead of the folder
        model: selected on validation cases, or the last round's
        site: use the network of this site, where sites keep private layers
        about: JSON or YAML laid over the bundle's metadata: authors, copyright, data_source, intended_use, ...
        overwrite: replace an existing bundle
    """
    from fedbcs_monai.bundle import write_bundle
    from fedbcs_monai.config import read_config

    console = verbosity.console()
    console.note("writing the bundle; computing its exports beside the network takes a minute")
    path, differences = write_bundle(
        run,
        output,
        which=model,
        site=site,
        trust=trust,
        about=read_config(about) if about else None,
        overwrite=overwrite,
        zipped=zipped,
    )
    for name, difference in differences._asdict().items():
        text = f"{name} differs from the network by at most {difference:.1e}"
        console.result("export", text, name=name, max_difference=difference)
    console.result("bundle", path=path)
