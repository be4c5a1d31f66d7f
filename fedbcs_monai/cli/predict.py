"""``fedbcs predict``: segment images with a trained model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fedbcs_monai.cli.options import NORMAL, OUTPUT, SEVERAL, Device, Model, Trust, Verbosity
from fedbcs_monai.errors import UserError


def predict(
    *models: Path,
    more: Annotated[Sequence[Path], SEVERAL, Parameter(name="-m")] = (),
    input: Annotated[Sequence[str], SEVERAL, Parameter(alias="-i")],
    output: Annotated[Path, OUTPUT],
    output_type: Annotated[
        Sequence[Literal["own", "nifti", "dicom_seg", "dicom_rtstruct"]], SEVERAL, Parameter(alias="-ot")
    ] = ("own",),
    probability: Annotated[bool, Parameter(alias="-p")] = False,
    series: Annotated[Sequence[str], SEVERAL] = (),
    tta: bool = False,
    model: Model = "selected",
    site: str | None = None,
    device: Device = "auto",
    overlay: Annotated[bool, Parameter(name="--overlay", negative="--no-overlay")] = True,
    resume: bool = False,
    overwrite: bool = False,
    trust: Trust = (),
    verbosity: Verbosity = NORMAL,
) -> None:
    """Segment new images; every mask has its image's own grid.

    The input is an image (NIfTI, NRRD, MHA; PNG, TIFF, JPEG, BMP), a folder with images directly in it, a DICOM file,
    folder or tree, a pattern in quotes, or a CSV with the column image, and optionally name and series. Where a folder
    holds several DICOM series and more than one fits the model, they are listed, and --series names the one that is
    meant. Outputs are named after the input, never after what is written in it.

    Args:
        models: run folder, bundle or model file; several: an ensemble
        more: the same as an option: -m A -m B
        input: what to segment
        output: folder, or a file for a single image
        output_type: of the masks; own is the image's own kind of file, and NIfTI for DICOM
        probability: also write a map of the probability
        series: DICOM series by number or UID, or all
        tta: average over mirror images: four times the work
        model: selected on validation cases, or the last round's
        site: the network as this site uses it (default: the global one)
        overlay: also write pictures of the outlines
        resume: keep finished outputs, and write the others
        overwrite: replace existing outputs
    """
    if not models and not more:
        raise UserError("which model? Name it first, or with -m: fedbcs predict MODEL -i IMAGES -o MASKS")
    from fedbcs_monai.predict.studies_to_masks import PartlyFailed, predict

    console = verbosity.console()

    def on_study(name: str, row: Mapping[str, Any]) -> None:
        structures = [structure(found) for found in row["classes"].values()]
        text = ", ".join([name, *(f"{found['name']} {_size(found)}" for found in structures)])
        console.result("segmented", text, study=name, structures=structures)
        for warning in row["warnings"]:
            console.warning(f"{name}: {warning}", study=name)

    written: Sequence[Path] = ()
    try:
        with console.progress("segmenting") as progress:
            written = predict(
                [*models, *more],
                input,
                output,
                types=output_type,
                probability=probability,
                overlay=overlay,
                series=series,
                tta=tta,
                resume=resume,
                overwrite=overwrite,
                device=device,
                which=model,
                site=site,
                trust=trust,
                progress=progress,
                on_study=on_study,
                on_note=console.note,
            )
    except KeyboardInterrupt:
        console.interrupted(output, "the same command and --resume")
        raise
    except PartlyFailed as error:
        written = error.written
        raise
    finally:
        for path in written:
            console.result("wrote", path=path)


def structure(found: Mapping[str, Any]) -> dict[str, Any]:
    """Name and size of a structure, for JSON records."""
    return {name: found[name] for name in ("name", "volume_ml", "area_px") if name in found}


def _size(found: Mapping[str, Any]) -> str:
    return f"{found['volume_ml']:.1f} mL" if "volume_ml" in found else f"{found['area_px']} pixels"
