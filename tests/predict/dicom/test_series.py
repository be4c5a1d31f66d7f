"""DICOM: the same volume however its files are stored, and a clear word where they are none."""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import highdicom as hd
import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.eulerangles import euler2mat
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

import fedbcs_monai
from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.dicom.geometry import Header, even_places, fault_of
from fedbcs_monai.predict.dicom.series import choose, find_series
from fedbcs_monai.predict.dicom.volume import read_series
from fedbcs_monai.predict.intended_input import ANY_INPUT, IntendedInput
from fedbcs_monai.predict.studies import AcceptedImages, find_studies


def read(folder: Path):
    (series,) = choose(find_series(folder.iterdir()), (), ANY_INPUT, folder)
    return read_series(series, folder)


def shuffled(images):
    """Names, instance numbers and times in an order that is none."""
    order = np.random.default_rng(1).permutation(len(images))
    for image, n in zip(images, order, strict=True):
        image.InstanceNumber, image.ContentTime = int(n) + 1, f"12{n:02d}00"
    return [images[n] for n in np.random.default_rng(2).permutation(len(images))]


def compressed(syntax):
    def compress(images):
        for image in images:
            image.compress(syntax, generate_instance_uid=False)
        return images

    return compress


def stored_as(syntax):
    def store(images):
        for image in images:
            image.file_meta.TransferSyntaxUID = syntax
            if syntax == ExplicitVRBigEndian:
                image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
        return images

    return store


def jpeg_lossless(images):
    """As most archives compress MR; pydicom cannot write it."""
    for image in images:
        pixels = imagecodecs.ljpeg_encode(image.pixel_array, bitspersample=12)
        image.PixelData = encapsulate([pixels])
        image["PixelData"].VR = "OB"
        image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    return images


def multiframe(images):
    enhanced = hd.legacy.LegacyConvertedEnhancedMRImage(images, "1.2.3.4.7", 5, "1.2.3.4.7.1", 1)
    return [enhanced]


@pytest.mark.filterwarnings("ignore")  # pydicom and highdicom on what is stored oddly
@pytest.mark.parametrize(
    "stored",
    [
        list,
        shuffled,
        lambda images: images[::-1],
        stored_as(ImplicitVRLittleEndian),
        stored_as(ExplicitVRBigEndian),
        compressed(RLELossless),
        jpeg_lossless,
        compressed(JPEGLSLossless),
        compressed(JPEG2000Lossless),
        multiframe,
    ],
    ids=[
        "plain",
        "shuffled",
        "reversed",
        "implicit",
        "big endian",
        "rle",
        "jpeg",
        "jpeg-ls",
        "jpeg 2000",
        "multi-frame",
    ],
)
def test_a_series_is_one_volume_however_it_is_stored(tmp_path, made, stored):
    array = made.voxels((40, 48, 5))  # JPEG 2000 wants more than 32 pixels a side
    source = read(made.save(stored(made.slices(array)), tmp_path / "Größe 1"))
    assert np.array_equal(source.array, array)
    assert np.abs(source.affine - made.geometry()).max() < 1e-6
    assert source.notes == ()


AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, [-1, 0, 0, 0, 1, 0]])
def test_an_independent_reader_sees_the_same_voxels_at_the_same_places(tmp_path, made, orientation):
    folder = made.save(shuffled(made.slices(made.voxels(), orientation)), tmp_path / "series")
    source, reader = read(folder), SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    assert np.array_equal(SimpleITK.GetArrayFromImage(image).T, source.array)
    lps = np.diag([-1.0, -1, 1, 1]) @ source.affine
    for index in ((0, 0, 0), (3, 5, 2), (19, 31, 4)):
        place = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose((lps @ [*index, 1])[:3], place, atol=1e-5)


def test_rescaled_and_inverted_grey_values_are_those_of_the_image(tmp_path, made):
    array = made.voxels()
    images = made.slices(array)
    for image in images:
        image.RescaleSlope, image.RescaleIntercept = 2, -100
    assert np.array_equal(read(made.save(images, tmp_path / "rescaled")).array, 2.0 * array - 100)
    images = made.slices(array)
    for image in images:
        image.PhotometricInterpretation = "MONOCHROME1"
    source = read(made.save(images, tmp_path / "inverted"))
    assert np.array_equal(source.array, 4095.0 - array)
    assert "MONOCHROME1" in source.notes[0]


def lacking(keyword):
    def spoil(images):
        del images[2][keyword]
        return images

    return spoil


def setting(keyword, value, at=slice(2, 3)):
    def spoil(images):
        for image in images[at]:
            setattr(image, keyword, value)
        return images

    return spoil


def repeated(keyword, value):
    """Every slice twice, as with two b-values or time points."""

    def spoil(images):
        copies = deepcopy(images)
        for n, image in enumerate(copies):
            image.SOPInstanceUID = f"1.2.3.4.6.{n}"
            setattr(image, keyword, value)
        for image in images:
            if keyword == "DiffusionBValue":
                image.DiffusionBValue = 0
        return [*images, *copies]

    return spoil


def sheared(images):
    for n, image in enumerate(images):
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y + 0.5 * n, z]
    return images


def comma(images):
    images[1].PixelSpacing = "0.75\\0.75"
    images[1]._dict[pydicom.tag.Tag("PixelSpacing")] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("PixelSpacing"), "DS", 10, b"0,75\\0,75 ", 0, False, True
    )
    return images


def coloured(images):
    images[0].SamplesPerPixel, images[0].PhotometricInterpretation = 3, "RGB"
    return images


@pytest.mark.filterwarnings("ignore")  # pydicom on values that the standard does not allow
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda images: [*images[:2], *images[3:]], r"im001.dcm and im002.dcm lie 6.00 mm, elsewhere 3.00 mm; is"),
        (repeated("DiffusionBValue", 800), "2 images lie at one place .*they differ in b-value"),
        (repeated("TemporalPositionIdentifier", 2), "2 images lie at one place .*they differ in time point"),
        (repeated("EchoTime", 20), "2 images lie at one place .*they differ in echo time"),
        (repeated("PatientSex", "F"), "2 images lie at one place .*are these copies"),
        (setting("ImageOrientationPatient", SAGITTAL), "lie in 2 directions .a localizer"),
        (setting("Rows", 16), "2 matrix sizes"),
        (setting("PixelSpacing", [0.6, 0.55]), "differ in pixel spacing"),
        (setting("PixelSpacing", [0.0, 0.0], slice(None)), "PixelSpacing is 0 x 0 mm"),
        (setting("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], slice(None)), "not two directions at right angles"),
        (setting("PhotometricInterpretation", "MONOCHROME1"), "some of its images are MONOCHROME1"),
        (lacking("ImagePositionPatient"), "im002.dcm: has no ImagePositionPatient"),
        (lacking("ImageOrientationPatient"), "im002.dcm: has no ImageOrientationPatient"),
        (lacking("PixelSpacing"), "im002.dcm: has no PixelSpacing"),
        (comma, r"im001.dcm: PixelSpacing is not numbers \(a decimal comma\?\)"),
        (sheared, "shifted against each other .a tilted gantry"),
        (setting("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "im002.dcm: a Siemens mosaic"),
        (coloured, "a colour image"),
    ],
)
def test_what_is_not_one_volume_is_refused_with_the_reason(tmp_path, made, spoil, said):
    folder = made.save(spoil(made.slices(made.voxels())), tmp_path / "series")
    with pytest.raises(UserError, match=said) as refusal:
        read(folder)
    assert "Doe" not in str(refusal.value)


def rounded(images, digits=1):
    for image in images:
        image.ImagePositionPatient = [round(float(x), digits) for x in image.ImagePositionPatient]
    return images


@settings(max_examples=30, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    step=st.floats(1, 6),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
    count=st.integers(3, 40),
    missing=st.integers(1, 38),
)
def test_positions_rounded_to_a_tenth_of_a_millimetre_are_one_volume_and_a_missing_slice_is_not(
    angles, step, origin, count, missing
):
    """Of any place, direction and distance of slices; what is made of them lies within 0.1 mm of the truth."""
    x, y, z = euler2mat(*angles).T
    truth = np.array(origin) + np.outer(np.arange(count) * step, z)
    headers = [header_at(np.round(place, 1), [*x, *y]) for place in truth]
    assert fault_of(headers) == ""
    even = even_places([header.data.ImagePositionPatient for header in headers], [*x, *y])
    assert np.linalg.norm(even - truth, axis=1).max() < 0.1
    if missing < count - 1 and count > 3:
        assert "is a slice missing?" in fault_of(headers[:missing] + headers[missing + 1 :])


def header_at(place, directions):
    data = pydicom.Dataset()
    data.ImagePositionPatient, data.ImageOrientationPatient = place.tolist(), [round(float(c), 9) for c in directions]
    data.PixelSpacing, data.Rows, data.Columns = [0.5, 0.5], 8, 8
    return Header(Path("a.dcm"), data)


def test_a_series_of_rounded_positions_is_read_where_it_lies(tmp_path, made):
    source = read(made.save(rounded(made.slices(made.voxels())), tmp_path / "series"))
    assert np.array_equal(source.array, made.voxels())
    corners = np.array([[0, 0, 0, 1], [19, 31, 4, 1]]).T
    assert np.abs((source.affine - made.geometry()) @ corners).max() < 0.1
    assert np.linalg.norm(source.affine[:3, 2]) == pytest.approx(3, abs=0.05)


def test_positions_that_are_regular_as_they_are_stay(made):
    images = made.slices(made.voxels())
    positions = [[float(x) for x in image.ImagePositionPatient] for image in images]
    assert np.array_equal(even_places(positions, made.OBLIQUE), positions)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("beginning", ["header of the file", "data"])
def test_slices_without_preamble_and_ending_are_slices(tmp_path, made, beginning, syntax):
    """Without the preamble, or also without the header that names the encoding, as some archives store them."""
    folder = made.save(stored_as(syntax)(made.slices(made.voxels())), tmp_path / "series")
    charset = b"\x00\x08\x00\x05" if syntax == ExplicitVRBigEndian else b"\x08\x00\x05\x00"
    for path in sorted(folder.iterdir())[3:]:
        content = path.read_bytes()
        start = 132 if beginning == "header of the file" else content.index(charset)
        path.with_suffix("").write_bytes(content[start:])
        path.unlink()
    (study,) = find_studies([folder], AcceptedImages(False)).studies
    source = study.read()
    assert np.array_equal(source.array, made.voxels())
    assert np.abs(source.affine - made.geometry()).max() < 1e-6
    assert source.notes == ()


def test_every_file_that_is_passed_over_is_counted_and_a_dicomdir_is_none(tmp_path, made):
    folder = made.save(made.slices(made.voxels()), tmp_path / "series")
    (folder / "im004.dcm").rename(folder / "im004")
    (folder / "im004").write_bytes(b"encrypted by the archive")
    (folder / "readme.txt").write_text("of the viewer")
    report = made.slices(made.voxels())[0]
    del report.Rows, report.Columns, report.PixelData
    made.save([report], folder, "report")
    index = pydicom.dataset.FileMetaDataset()
    index.MediaStorageSOPClassUID, index.MediaStorageSOPInstanceUID = MediaStorageDirectoryStorage, "1.2.3"
    index.TransferSyntaxUID = ExplicitVRLittleEndian
    directory = pydicom.Dataset()
    directory.file_meta, directory.FileSetID = index, "DISC"
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    (study,) = find_studies([folder], AcceptedImages(False)).studies
    (note,) = study.read().notes
    assert note == (
        "files of its folder were passed over: 2 that are no DICOM and 1 that is DICOM without an image of the "
        "patient; is none of them a slice?"
    )
    (folder / "DICOMDIR").rename(folder / "index")  # known by what it says, too
    assert "2 that are DICOM without" in find_studies([folder], AcceptedImages(False)).studies[0].notes[0]


def test_links_to_folders_are_followed_once(tmp_path, made):
    made.save(made.slices(made.voxels()), tmp_path / "archive" / "series")
    study = tmp_path / "study"
    study.mkdir()
    (study / "t2").symlink_to(tmp_path / "archive" / "series", target_is_directory=True)
    (tmp_path / "archive" / "series" / "back").symlink_to(study, target_is_directory=True)
    (found,) = find_studies([study], AcceptedImages(False)).studies
    assert len(found.series.files) == 5


def test_a_file_cut_short_is_named(tmp_path, made):
    folder = made.save(made.slices(made.voxels()), tmp_path / "series")
    (folder / "im003.dcm").write_bytes((folder / "im003.dcm").read_bytes()[:-200])
    with pytest.raises(UserError, match=r"im003.dcm: its pixels cannot be decoded"):
        read(folder)
    (folder / "im003.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(UserError, match=r"im003.dcm: not a readable DICOM file"):
        read(folder)


SHAPE = """
import sys
from pathlib import Path
from fedbcs_monai.predict.dicom.series import find_series
from fedbcs_monai.predict.dicom.volume import read_series
from fedbcs_monai.errors import UserError
folder = Path(sys.argv[1])
try:
    print(read_series(find_series(folder.iterdir())[0], folder).array.shape)
except UserError as error:
    print(error)
"""


@pytest.fixture
def shape_without_libjpeg(tmp_path):
    """What reading a series says in an environment of the same packages without pylibjpeg-libjpeg."""
    if sys.platform == "win32":
        pytest.skip("links need rights there")
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in Path(pydicom.__file__).parents[1].iterdir():
        if not path.name.startswith(("libjpeg", "pylibjpeg_libjpeg", "fedbcs_monai", "__editable__")):
            (packages / path.name).symlink_to(path)
    (packages / "fedbcs_monai").symlink_to(Path(fedbcs_monai.__file__).parent)

    def shape(folder):
        command = [sys.executable, "-S", "-W", "ignore", "-c", SHAPE, str(folder)]
        alone = {**os.environ, "PYTHONPATH": str(packages)}
        return subprocess.run(command, env=alone, check=True, capture_output=True, text=True).stdout.strip()

    return shape


def test_jpeg_that_a_missing_decoder_reads_names_its_extra(tmp_path, made, shape_without_libjpeg):
    folder = made.save(jpeg_lossless(made.slices(made.voxels((40, 48, 5)))), tmp_path / "series")
    said = shape_without_libjpeg(folder)
    assert "im000.dcm: its pixels cannot be decoded (RuntimeError; lossless or 12-bit JPEG needs" in said
    assert "pip install 'fedbcs-monai[dicom-jpeg]'" in said
    assert len(said.splitlines()) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_other_encodings_need_no_decoder_under_the_gpl(tmp_path, made, shape_without_libjpeg, syntax):
    folder = made.save(compressed(syntax)(made.slices(made.voxels((40, 48, 5)))), tmp_path / "series")
    assert shape_without_libjpeg(folder) == "(40, 48, 5)"


def test_an_invalid_uid_is_said_and_the_volume_read(tmp_path, made):
    images = made.slices(made.voxels(), series="1.2.3.4.5")
    for n, image in enumerate(images):
        image.FrameOfReferenceUID = f"1.2.3.9.{n}"
    folder = made.save(images, tmp_path / "series")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.2.3.4.5\0", b"1.2.03.45\0"))
    source = read(folder)
    assert np.abs(source.affine - made.geometry()).max() < 1e-6
    assert "5 frames of reference" in source.notes[0]
    assert "SeriesInstanceUID breaks DICOM's rules" in source.notes[1]
    assert source.series.unfit == source.notes[1]


def two_series(made, tmp_path, **second):
    """A T2 and something else in one tree."""
    orientation, number = second.pop("orientation", made.OBLIQUE), second.pop("number", 7)
    others = made.slices(made.voxels(seed=1), orientation, "1.2.3.4.8", number)
    for image in others:
        for keyword, value in second.items():
            setattr(image, keyword, value)
    made.save(made.slices(made.voxels()), tmp_path / "tree" / "a")
    made.save(others, tmp_path / "tree" / "b")
    return tmp_path / "tree"


def test_the_only_series_that_fits_is_taken_and_otherwise_they_are_listed(tmp_path, made):
    tree = two_series(made, tmp_path, orientation=CORONAL)
    found = find_series(tree.rglob("*.dcm"))
    assert [series.intended_input for series in found] == [IntendedInput("MR", "axial"), IntendedInput("MR", "coronal")]
    assert choose(found, (), IntendedInput("MR", "axial"), tree) == found[:1]
    assert choose(found, ("7",), ANY_INPUT, tree) == found[1:]
    assert choose(found, (found[1].uid,), ANY_INPUT, tree) == found[1:]
    assert choose(found, ("all",), ANY_INPUT, tree) == found
    with pytest.raises(UserError) as asked:
        choose(found, (), ANY_INPUT, tree)
    first, *lines = str(asked.value).splitlines()
    assert "holds 2 DICOM series; 2 of them may be meant; name one with --series" in first
    assert lines == [
        "  4: MR axial, 5 images of 20 x 32, TR 5000, TE 100, ORIGINAL PRIMARY M",
        "  7: MR coronal, 5 images of 20 x 32, TR 5000, TE 100, ORIGINAL PRIMARY M",
    ]
    with pytest.raises(UserError, match="--series 9 is none of them"):
        choose(found, ("9",), ANY_INPUT, tree)
    with pytest.raises(UserError, match="none of them fits this model"):
        choose(found, (), IntendedInput("CT"), tree)


def test_a_localizer_beside_the_series_is_never_taken(tmp_path, made):
    tree = two_series(made, tmp_path, number=1)
    for n, path in enumerate(sorted((tree / "b").iterdir())):
        image = pydicom.dcmread(path)
        image.ImageOrientationPatient = (AXIAL, CORONAL, SAGITTAL)[n % 3]
        image.save_as(path)
    found = find_series(tree.rglob("*.dcm"))
    assert [series.number for series in found] == ["1", "4"]
    assert choose(found, (), ANY_INPUT, tree) == found[1:]
    with pytest.raises(UserError, match="series 1: its images lie in 3 directions"):
        choose(found, ("1",), ANY_INPUT, tree)


def test_two_patients_are_told_apart_and_neither_is_named(tmp_path, made):
    tree = two_series(made, tmp_path, number=4, PatientName="Roe^Richard", PatientID="HOSP-1", StudyInstanceUID="1.2.5")
    with pytest.raises(UserError, match="2 DICOM series of 2 patients; 2 of them may be meant") as asked:
        choose(find_series(tree.rglob("*.dcm")), (), ANY_INPUT, tree)
    lines = str(asked.value).splitlines()
    assert [line[:24] for line in lines[1:]] == ["  1: patient 1, study 1,", "  2: patient 2, study 2,"]
    assert not any(word in str(asked.value) for word in ("Doe", "Roe", "HOSP", "Jane", "t2 of"))


def test_one_series_with_two_patients_is_two(tmp_path, made):
    images = made.slices(made.voxels())
    for image in images[3:]:
        image.PatientID = "HOSP-2"
    folder = made.save(images, tmp_path / "series")
    with pytest.raises(UserError, match="of 2 patients"):
        read(folder)


def test_a_series_of_another_kind_is_asked_about(tmp_path, made):
    folder = made.save(made.slices(made.voxels()), tmp_path / "series")
    found = find_series(folder.iterdir())
    with pytest.raises(UserError, match="is MR axial, but this model is for CT coronal; --series 4 segments it anyway"):
        choose(found, (), IntendedInput("CT", "coronal"), folder)
    assert choose(found, ("4",), IntendedInput("CT"), folder) == found


def test_what_holds_no_image_is_left_out(tmp_path, made):
    folder = made.save(made.slices(made.voxels()), tmp_path / "series")
    note = made.slices(made.voxels())[0]
    for keyword in ("Rows", "Columns", "PixelData"):
        del note[keyword]
    note.Modality = "SR"
    note.save_as(folder / "note.dcm")
    assert len(find_series(folder.iterdir())) == 1
    with pytest.raises(UserError, match="contain no image"):
        choose(find_series([folder / "note.dcm"]), (), ANY_INPUT, folder)
