"""``fedbcs predict``: new images to masks."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbcs_monai.cli.console import Quiet, voice
from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.studies_to_masks import PartlyFailed, predict


def run(options: Namespace) -> None:
    """Segment, say what was found, and where the masks are."""
    if not options.model:
        raise UserError("which model? Name it first, or with -m: fedbcs predict MODEL -i IMAGES -o MASKS")
    say = voice(options)

    def heard(name: str, row: Mapping[str, Any]) -> None:
        say.result("segmented", study=name, found=", ".join(_sizes(row)))
        for warning in row["warnings"]:
            say.note(f"{name}: {warning}")

    try:
        with say.progress("segmenting") as progress:
            written = predict(
                options.model,
                options.input,
                options.output,
                types=options.output_type or ["own"],
                probability=options.probability,
                overlay=not options.no_overlay,
                series=options.series,
                tta=options.tta,
                resume=options.resume,
                overwrite=options.overwrite,
                device=options.device,
                which=options.which,
                site=options.site,
                trust=options.trust,
                progress=progress,
                heard=heard,
                noted=say.note,
            )
    except KeyboardInterrupt:
        say.result("interrupted; go on with the same command and --resume", folder=options.output)
        raise
    except PartlyFailed as error:
        _wrote(say, error.written)
        raise
    _wrote(say, written)


def _wrote(say: Quiet, masks: Sequence[Path]) -> None:
    for path in masks:
        say.result("wrote", path=path)


def _sizes(row: Mapping[str, Any]) -> list[str]:
    """Each structure and its size, as in ``prostate 41.3 mL``."""
    return [f"{found['name']} {_size(found)}" for found in row["classes"].values()]


def _size(found: Mapping[str, Any]) -> str:
    return f"{found['volume_ml']:.1f} mL" if "volume_ml" in found else f"{found['area_px']} pixels"
