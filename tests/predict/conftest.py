"""Run folders with random weights, a network that marks what is bright, and synthetic DICOM series."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from fedbcs_monai.config import load_config
from fedbcs_monai.runs.setup import build_network, compute_of
from fedbcs_monai.settings import plain
from fedbcs_monai.tensors import write_tensors

SMALL = {"network_def::features": [8, 8, 8, 8, 8], "device": "cpu"}
CHANGES = {"prostate": {"preprocessing::transforms::2::spatial_size": [40, 64, -1]}, "nuclei": {}}


class Bright(torch.nn.Module):
    """The middle channel, (N, 3, H, W) to logits (N, 2, H, W): foreground where it is above a half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = 100 * (images[:, 1] - 0.5)
        return torch.stack([-level, level], dim=1)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory) -> Callable[..., Path]:
    """Makes a run folder with random weights: ``make_model("nuclei", {"inferer::roi_size": [64, 64]})``."""

    def make(task: str, changes: Mapping[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp(task)
        config = load_config(task, {**SMALL, **changes})
        (folder / "config.json").write_text(json.dumps(plain(config)))
        weights = build_network(config, compute_of(config)).state_dict()
        write_tensors(folder / "model.safetensors", weights)
        write_tensors(folder / "last.safetensors", {name: tensor * 2 for name, tensor in weights.items()})
        return folder

    return make


@pytest.fixture(scope="session")
def models(make_model) -> dict[str, Path]:
    """A run folder for each task."""
    return {task: make_model(task, changes) for task, changes in CHANGES.items()}


@pytest.fixture
def bright(monkeypatch):
    """Every predictor marks what is bright, instead of running its network."""
    monkeypatch.setattr("fedbcs_monai.runs.model_io.build_network", lambda *_: Bright())


PATIENT = {"PatientName": "Doe^Jane", "PatientID": "HOSP-4711", "PatientBirthDate": "19500101", "PatientSex": "F"}
STUDY = {"StudyInstanceUID": "1.2.3.4", "StudyDate": "20200101", "StudyTime": "120000", "StudyID": "1"}
OBLIQUE = [1, 0, 0, 0, np.cos(0.3), -np.sin(0.3)]
ORIGIN, SPACING, GAP = (-7.5, 12.0, 30.0), (0.6, 0.5), 3.0  # spacing of rows, of columns


def geometry(orientation=OBLIQUE) -> np.ndarray:
    """Where voxel (X, Y, Z) of a synthetic series lies in RAS, from the standard's equation (PS3.3 C.7.6.2.1.1)."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = row * SPACING[1], column * SPACING[0], np.cross(row, column) * GAP
    lps[:3, 3] = ORIGIN
    return np.diag([-1.0, -1, 1, 1]) @ lps


def voxels(shape=(20, 32, 5), seed=0) -> np.ndarray:
    """Noise with a bright L that no flip or turn maps onto itself, (X, Y, Z) uint16."""
    array = np.random.default_rng(seed).integers(10, 100, shape).astype(np.uint16)
    array[2:6, 3:20, 1:3] = 1000
    array[2:14, 3:8, 1:3] = 1000
    return array


def slices(array: np.ndarray, orientation=OBLIQUE, series="1.2.3.4.5", number=4) -> list[pydicom.Dataset]:
    """An MR series of single slices, as a scanner sends it."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    made = []
    for n in range(array.shape[2]):
        image = pydicom.Dataset()
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = f"{series}.{n + 1}"
        for keyword, value in {**PATIENT, **STUDY}.items():
            setattr(image, keyword, value)
        image.SpecificCharacterSet = "ISO_IR 100"
        image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "MR", series, number
        image.SeriesDescription, image.InstitutionName = "t2 of Jane Doe", "St Elsewhere"
        image.FrameOfReferenceUID, image.PositionReferenceIndicator = "1.2.3.4.9", ""
        image.ImageType, image.InstanceNumber = ["ORIGINAL", "PRIMARY", "M"], n + 1
        image.ReferringPhysicianName, image.Manufacturer, image.Laterality = "", "Maker", ""
        image.ScanningSequence, image.SequenceVariant, image.ScanOptions, image.MRAcquisitionType = "SE", "SK", "", "2D"
        image.RepetitionTime, image.EchoTime, image.EchoTrainLength = 5000, 100, 8
        image.ContentDate, image.ContentTime, image.AcquisitionTime = "20200101", "120100", "120100"
        image.ImageOrientationPatient = [round(float(cosine), 12) for cosine in orientation]
        image.ImagePositionPatient = [round(float(x), 9) for x in ORIGIN + np.cross(row, column) * GAP * n]
        image.PixelSpacing, image.SliceThickness = list(SPACING), GAP
        image.Rows, image.Columns, image.SamplesPerPixel = array.shape[1], array.shape[0], 1
        image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
        image.PixelData = np.ascontiguousarray(array[:, :, n].T).tobytes()
        made.append(image)
    return made


@pytest.fixture(scope="session")
def made():
    """The functions and numbers above, for tests: ``made.slices(made.voxels())``."""

    class Made:
        pass

    for name in ("geometry", "voxels", "slices", "save", "PATIENT", "OBLIQUE", "GAP", "ORIGIN", "SPACING"):
        setattr(Made, name, staticmethod(globals()[name]) if callable(globals()[name]) else globals()[name])
    return Made


def save(images: list[pydicom.Dataset], folder: Path, prefix: str = "im") -> Path:
    """Write images into a folder, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, image in enumerate(images):
        image.save_as(folder / f"{prefix}{n:03d}.dcm", enforce_file_format=True)
    return folder
