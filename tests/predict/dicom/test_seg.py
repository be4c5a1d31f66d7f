"""DICOM SEG: what other programs read back, and that it refers to its images."""

import json
import subprocess

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.sr.codedict import codes

from fedbcs_monai.predict.dicom.seg import coded, written
from fedbcs_monai.predict.dicom.series import find_series
from fedbcs_monai.predict.dicom.volume import read_series

MODEL = {"name": "prostate_fedbcs", "version": "0123456789ab"}


def mask_of(source) -> np.ndarray:
    return (source.array > 500).astype(np.uint8)


@pytest.fixture
def saved(source, tmp_path):
    path = tmp_path / "a_seg.dcm"
    written(mask_of(source), source.series, ["prostate"], MODEL).save_as(path)
    return path


def test_the_standard_s_own_checker_finds_no_error(saved, errors):
    assert errors(saved) == []


def test_the_checker_would_find_one(saved, tmp_path, errors):
    broken = pydicom.dcmread(saved)
    del broken.SegmentSequence
    broken.save_as(tmp_path / "broken.dcm")
    assert errors(tmp_path / "broken.dcm") != []


def test_dcmqi_reads_back_the_same_voxels_at_the_same_places(saved, source, tmp_path, program):
    arguments = ["--inputDICOM", str(saved), "--outputDirectory", str(tmp_path / "back"), "--outputType", "nrrd"]
    (tmp_path / "back").mkdir()
    subprocess.run([program("segimage2itkimage"), *arguments], capture_output=True, check=True)
    back = SimpleITK.ReadImage(str(next((tmp_path / "back").glob("*.nrrd"))))
    voxels, lps = SimpleITK.GetArrayFromImage(back).T, np.diag([-1.0, -1, 1, 1]) @ source.affine
    ours = {tuple(np.round((lps @ [*index, 1])[:3], 2)) for index in np.argwhere(mask_of(source))}
    theirs = {tuple(np.round(back.TransformIndexToPhysicalPoint(index), 2)) for index in np.argwhere(voxels).tolist()}
    assert ours == theirs
    named = json.loads((tmp_path / "back" / "meta.json").read_text())["segmentAttributes"][0][0]
    assert named["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == "41216001"


def test_highdicom_reads_back_the_same_volume(saved, source):
    back = hd.seg.segread(saved).get_volume(combine_segments=True, allow_missing_positions=True)
    expected = source.series.geometry.with_array(mask_of(source))
    assert np.array_equal(back.match_geometry(expected).array, expected.array)


def test_a_series_without_preambles_and_with_rounded_positions_has_one_too(tmp_path, made):
    images = made.slices(made.voxels())
    for image in images:
        image.ImagePositionPatient = [round(float(x), 1) for x in image.ImagePositionPatient]
    folder = made.save(images, tmp_path / "series")
    for path in folder.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[content.index(b"\x08\x00\x05\x00") :])
    source = read_series(find_series(folder.iterdir())[0], folder)
    written(mask_of(source), source.series, ["prostate"], MODEL).save_as(tmp_path / "seg.dcm")
    back = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True, allow_missing_positions=True)
    expected = source.series.geometry.with_array(mask_of(source))
    assert np.array_equal(back.match_geometry(expected).array, expected.array)


def test_it_refers_to_its_images_patient_and_study(saved, made):
    seg, image = pydicom.dcmread(saved), made.slices(made.voxels())[0]
    for keyword in (*made.PATIENT, "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert seg[keyword].value == image[keyword].value
    series = seg.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == image.SeriesInstanceUID != seg.SeriesInstanceUID
    referred = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert referred == {one.SOPInstanceUID for one in made.slices(made.voxels())}
    segment = seg.SegmentSequence[0]
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MODEL["name"], MODEL["version"])
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"


def test_an_empty_mask_is_a_segment_all_the_same(source, tmp_path, errors):
    written(np.zeros_like(mask_of(source)), source.series, ["prostate"], MODEL).save_as(tmp_path / "a.dcm")
    back = hd.seg.segread(tmp_path / "a.dcm")
    assert back.number_of_segments == 1
    assert not back.pixel_array.any()
    assert errors(tmp_path / "a.dcm") == []


def test_several_classes_are_several_segments(source, tmp_path, errors):
    mask = mask_of(source)
    mask[10:, 20:, 3:] = 2
    written(mask, source.series, ["peripheral zone of the prostate", "class 2"], MODEL).save_as(tmp_path / "a.dcm")
    back = hd.seg.segread(tmp_path / "a.dcm")
    expected = source.series.geometry.with_array(mask)
    volume = back.get_volume(combine_segments=True, allow_missing_positions=True)
    assert np.array_equal(volume.match_geometry(expected).array, mask)
    labels = [back.get_segment_description(number).segment_label for number in (1, 2)]
    assert labels == ["peripheral zone of the prostate", "class 2"]
    assert errors(tmp_path / "a.dcm") == []


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("prostate", codes.SCT.Prostate),
        ("left_ventricle", codes.SCT.LeftVentricle),
        ("peripheral zone of the prostate", codes.SCT.PeripheralZoneOfTheProstate),
        ("class 1", codes.SCT.Tissue),
    ],
)
def test_structures_have_their_standard_codes(name, code):
    assert coded(name) == code


def test_a_multi_frame_source_has_a_segmentation_too(tmp_path, made, errors):
    (tmp_path / "series").mkdir()
    enhanced = hd.legacy.LegacyConvertedEnhancedMRImage(made.slices(made.voxels()), "1.2.3.4.7", 5, "1.2.3.4.7.1", 1)
    enhanced.save_as(tmp_path / "series" / "a.dcm")
    source = read_series(find_series((tmp_path / "series").iterdir())[0], tmp_path)
    written(mask_of(source), source.series, ["prostate"], MODEL).save_as(tmp_path / "seg.dcm")
    back = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True, allow_missing_positions=True)
    expected = source.series.geometry.with_array(mask_of(source))
    assert np.array_equal(back.match_geometry(expected).array, expected.array)
    assert errors(tmp_path / "seg.dcm") == []
