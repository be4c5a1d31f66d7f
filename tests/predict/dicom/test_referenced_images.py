"""ReferencedImages: what SEG and RTSTRUCT copy of images whose headers break the rules."""

import warnings

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from fedbcs_monai.predict.dicom import rtstruct, seg
from fedbcs_monai.predict.dicom.referenced_images import referenced_images, standard_charset
from fedbcs_monai.predict.dicom.series import find_series, quiet
from fedbcs_monai.predict.dicom.volume import read_series

MODEL = {"name": "prostate_fedbcs", "version": "0123456789ab"}
JAPANESE = "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046"
KOREAN = "Hong^Gildong=\u6d2a^\u5409\u6d1e=\ud64d^\uae38\ub3d9"
WRITERS = pytest.mark.parametrize("writer", [seg, rtstruct], ids=["SEG", "RTSTRUCT"])


def read(images, made, folder, replace=()):
    """The series as it is read, after replacing some bytes in its files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save(images, folder)
    for path in folder.iterdir():
        for old, new in replace:
            assert len(old) == len(new)
            assert old in path.read_bytes()
            path.write_bytes(path.read_bytes().replace(old, new))
    return read_series(find_series(folder.iterdir())[0], folder)


def spoilt(made, **values):
    """A synthetic series in which every image has these values."""
    images = made.slices(made.voxels())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for image in images:
            for keyword, value in values.items():
                if value is None:
                    delattr(image, keyword)
                else:
                    setattr(image, keyword, value)
    return images


def back(source, writer, folder) -> Dataset:
    mask = (source.array > 500).astype(np.uint8)
    with quiet():
        writer.written(mask, source.series, ["prostate"], MODEL).save_as(folder / "mask.dcm", enforce_file_format=True)
        found = pydicom.dcmread(folder / "mask.dcm")
        found.decode()
    return found


@WRITERS
@pytest.mark.parametrize(
    ("name", "charset", "replace", "expected"),
    [
        (JAPANESE, ["", "ISO 2022 IR 87"], (), ["", "ISO 2022 IR 87"]),
        (JAPANESE, ["ISO 2022 IR 13", "ISO 2022 IR 87"], (), ["ISO 2022 IR 13", "ISO 2022 IR 87"]),
        (KOREAN, ["", "ISO 2022 IR 149"], (), ["", "ISO 2022 IR 149"]),
        (KOREAN, ["", "ISO 2022 IR 149"], [(b"ISO 2022 IR 149", b"ISO_2022_IR_149")], ["", "ISO 2022 IR 149"]),
        ("M\u00fcller^J\u00f6rg", "ISO_IR 100", [(b"ISO_IR 100", b"ISO-IR 100")], "ISO_IR 100"),
        ("M\u00fcller^J\u00f6rg", "ISO_IR 100", [(b"ISO_IR 100", b"iso_ir_100")], "ISO_IR 100"),
        ("M\u00fcller^J\u00f6rg", "ISO_IR 192", [(b"ISO_IR 192", b"UTF-8     ")], "ISO_IR 192"),
        (JAPANESE, "ISO_IR 192", [(b"ISO_IR 192", b"ISO-IR_192")], "ISO_IR 192"),
        ("\u738b^\u5c0f\u4e1c", "GB18030", (), "GB18030"),
        ("Doe^Jane", "ISO_IR 6", (), None),
        ("Doe^Jane", "", (), None),
    ],
)
def test_a_name_is_the_same_in_a_mask_whatever_its_letters(
    tmp_path, made, errors, writer, name, charset, replace, expected
):
    images = spoilt(made, SpecificCharacterSet=charset, PatientName=name)
    mask = back(read(images, made, tmp_path / "series", replace), writer, tmp_path)
    assert str(mask.PatientName) == name
    assert mask.get("SpecificCharacterSet") == expected
    assert errors(tmp_path / "mask.dcm") == []


@WRITERS
@pytest.mark.parametrize("charset", ["Klingon", None])
def test_letters_in_an_unknown_character_set_are_copied_byte_for_byte(tmp_path, made, writer, charset):
    raw = [(b"Mueller^Jane", b"M\xfcller^Janet")]
    images = spoilt(made, SpecificCharacterSet=charset, PatientName="Mueller^Jane")
    source = read(images, made, tmp_path / "series", [(b"Mueller^Jane", b"M\xfcller^Janet"[:12])])
    back(source, writer, tmp_path)
    assert raw[0][1][:12] in (tmp_path / "mask.dcm").read_bytes()
    (note,) = referenced_images(source.series).notes
    assert "SpecificCharacterSet" in note


SPOILT = {
    "PatientBirthDate": "1950-13-99",
    "StudyDate": "01.02.2020",
    "StudyTime": "12:0x",
    "PatientSex": "weiblich",
    "PatientAge": "about 70",
    "PatientWeight": "seventy",
    "PatientSize": "1,80",
    "StudyDescription": "long " * 30,
    "AcquisitionDateTime": "yesterday",
    "Manufacturer": "m" * 100,
    "ReferringPhysicianName": "A" * 90,
}
SECRETS = [value for value in SPOILT.values() if value != "weiblich"]


@WRITERS
def test_what_breaks_the_rules_is_left_out_and_named_without_its_value(tmp_path, made, errors, writer, recwarn, caplog):
    images = spoilt(made, **{keyword: "X" for keyword in SPOILT if keyword not in ("PatientWeight", "PatientSize")})
    for image in images:
        for keyword, value in SPOILT.items():
            image[keyword] = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(keyword), None, len(value) + len(value) % 2, _padded(value), 0, False, True
            )._replace(VR=pydicom.datadict.dictionary_VR(keyword))
        image.pop("SliceThickness")
    recwarn.clear()
    source = read(images, made, tmp_path / "series")
    mask = back(source, writer, tmp_path)
    assert mask.PatientID == made.PATIENT["PatientID"]
    for keyword in ("PatientBirthDate", "StudyDate", "StudyTime", "PatientSex", "ReferringPhysicianName"):
        assert keyword in mask
        assert not mask[keyword].value
    assert errors(tmp_path / "mask.dcm") == []
    said = " ".join(referenced_images(source.series).notes)
    assert "PatientBirthDate" in said
    assert "StudyTime" in said
    everything = said + caplog.text + " ".join(str(warning.message) for warning in recwarn)
    assert not any(secret in everything for secret in SECRETS)


def _padded(value: str) -> bytes:
    return value.encode() + b" " * (len(value) % 2)


@WRITERS
@pytest.mark.parametrize(("written", "expected"), [("f", "F"), ("Male", "M"), ("W", ""), ("O", "O")])
def test_a_sex_is_written_as_dicom_wants_it(tmp_path, made, writer, written, expected):
    source = read(spoilt(made, PatientSex=written), made, tmp_path / "series")
    assert (back(source, writer, tmp_path).PatientSex or "") == expected


@WRITERS
def test_an_identifier_that_is_too_long_is_never_cut(tmp_path, made, writer):
    source = read(spoilt(made, PatientID="4711" * 20), made, tmp_path / "series")
    assert back(source, writer, tmp_path).PatientID == "4711" * 20
    (note,) = referenced_images(source.series).notes
    assert note.endswith("repeated in DICOM masks as it is: PatientID")


@pytest.mark.parametrize("thickness", [None, "", "0"])
def test_a_missing_thickness_costs_no_segmentation(tmp_path, made, thickness):
    source = read(spoilt(made, SliceThickness=thickness), made, tmp_path / "series")
    mask_statistics = back(source, seg, tmp_path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(mask_statistics.SliceThickness) == pytest.approx(made.GAP)


@WRITERS
def test_a_multi_frame_source_with_a_malformed_date_and_a_japanese_name(tmp_path, made, writer, errors):
    single = spoilt(made, SpecificCharacterSet="ISO_IR 192", PatientName=JAPANESE)
    enhanced = hd.legacy.LegacyConvertedEnhancedMRImage(single, "1.2.3.4.7", 5, "1.2.3.4.7.1", 1)
    replace = [(b"19500101", b"1950-1-1"), (b"20200101", b"2020/1/1")]
    source = read([enhanced], made, tmp_path / "series", replace)
    mask = back(source, writer, tmp_path)
    assert (str(mask.PatientName), mask.PatientBirthDate, mask.StudyDate) == (JAPANESE, "", "")
    assert errors(tmp_path / "mask.dcm") == []


def test_a_sequence_with_a_broken_item_is_left_out_whole(tmp_path, made):
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = "HOSP-9", "TEXT"
    images = spoilt(made, OtherPatientIDsSequence=[other])
    assert "OtherPatientIDsSequence" in back(read(images, made, tmp_path / "a"), seg, tmp_path)
    source = read(images, made, tmp_path / "b", [(b"TEXT", b"te\xff?")])
    assert "OtherPatientIDsSequence" not in back(source, seg, tmp_path)
    assert referenced_images(source.series).notes[0].endswith("left out of DICOM masks: OtherPatientIDsSequence")


def test_sound_images_are_copied_without_a_word(tmp_path, made, source):
    assert referenced_images(source.series).notes == ()


KEYWORDS = ["PatientBirthDate", "PatientBirthTime", "PatientSex", "PatientAge", "PatientWeight", "PregnancyStatus"]
KEYWORDS += ["StudyDate", "StudyTime", "StudyID", "AccessionNumber", "PatientID", "PatientName", "PatientComments"]
KEYWORDS += ["ReferringPhysicianName", "Manufacturer", "SoftwareVersions", "SpecificCharacterSet", "SliceThickness"]
KEYWORDS += ["PositionReferenceIndicator", "SpacingBetweenSlices", "StudyDescription", "OtherPatientIDs"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(st.sampled_from(KEYWORDS), st.binary(max_size=90), max_size=5),
    writer=st.sampled_from([seg, rtstruct]),
)
def test_no_bytes_in_a_header_cost_a_mask(source, made, values, writer, tmp_path_factory):
    image = made.slices(made.voxels())[0]
    for keyword, value in values.items():
        kind, value = pydicom.datadict.dictionary_VR(keyword), value + b" " * (len(value) % 2)
        image[keyword] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(keyword), kind, len(value), value, 0, False, True
        )
    first = source.series.files[0]
    before = first.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.save_as(first, enforce_file_format=True)
        back(source, writer, tmp_path_factory.mktemp("masks"))
    finally:
        first.write_bytes(before)


@given(st.lists(st.text(max_size=16), max_size=3) | st.text(max_size=20))
def test_a_standard_character_set_is_understood_as_itself(declared):
    found = standard_charset(declared)
    assert found is None or standard_charset(found) == found
