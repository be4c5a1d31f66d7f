"""Real studies, where they are at hand: the folder in FEDBCS_DATA."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from fedbcs_monai.predict.dicom.series import find_series
from fedbcs_monai.predict.dicom.volume import read_series


@pytest.fixture
def study():
    def find(name):
        folder = Path(os.environ.get("FEDBCS_DATA", "")) / "dicom" / name
        if "FEDBCS_DATA" not in os.environ or not folder.is_dir():
            pytest.skip(f"FEDBCS_DATA names no folder with dicom/{name}")
        return folder

    return find


def test_a_prostate_study_lies_where_its_label_and_an_independent_reader_have_it(study):
    folder = study("prostatex-0000_t2_tra")
    source = read_series(find_series((folder / "dicom").iterdir())[0], folder)
    label, reader = nib.load(folder / "label_whole_gland.nii.gz"), SimpleITK.ImageSeriesReader()
    assert source.shape == label.shape
    corner = np.array([*label.shape, 1]) - [1, 1, 1, 0]
    assert np.abs((source.affine - label.affine) @ corner).max() < 0.1
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "dicom")))
    assert np.array_equal(SimpleITK.GetArrayFromImage(reader.Execute()).T, source.array)


def test_a_cardiac_series_with_invalid_uids_is_read_and_says_so(study):
    folder = study("sunnybrook_SCD0000101_lv")
    source = read_series(find_series((folder / "dicom").iterdir())[0], folder)
    assert source.shape == (256, 256, 9)
    assert "9 frames of reference" in source.notes[0]
    assert "breaks DICOM's rules" in source.series.unfit
