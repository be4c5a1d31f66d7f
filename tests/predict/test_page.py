"""The page: what needs a look comes first, names are text, nothing is loaded from elsewhere."""

import re

from PIL import Image

from fedbcs_monai.predict.page import Entry, write_page

PROVENANCE = {
    "models": [{"task": "prostate", "name": "FedBCS", "sha256": "ab" * 32}],
    "tta": False,
    "versions": {"torch": "2", "pydicom": None},
    "device": "cpu",
    "created": "2026-01-02T03:04:05+00:00",
}


def entry(name, tmp_path, warnings=()):
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    found = {"volume_ml": 41.25, "components": 2, "bounding_box": [[1, 2], [3, 4], [5, 6]], "mean_probability": 0.876}
    row = {
        "image": f"{name}.nii.gz",
        "shape": [3, 4, 5],
        "spacing_mm": [0.5, 0.5, 3.0],
        "classes": {"1": {**found, "name": "prostate"}},
        "warnings": list(warnings),
        "files": {"mask": "m.nii.gz"},
    }
    return Entry(name, row, tmp_path / "a.png")


def test_what_needs_a_look_comes_first_and_names_are_text(tmp_path):
    entries = [entry("calm", tmp_path), entry("<b>odd</b>", tmp_path, ["nothing was found"])]
    write_page(tmp_path / "report.html", entries, {"broken.nii": "not readable"}, ["x.png"], PROVENANCE)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "2 segmented, 1 with warnings, 1 failed" in page
    assert 0 < page.index("&lt;b&gt;odd&lt;/b&gt;") < page.index("calm")
    assert "<b>odd" not in page
    assert "41.25 mL" in page
    assert "1–2 × 3–4 × 5–6" in page
    anchors = set(re.findall('href="#(study-[^"]+)"', page))
    assert anchors == set(re.findall('id="(study-[^"]+)"', page)) != set()
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_warnings_are_shown_without_a_picture_too(tmp_path, monkeypatch):
    monkeypatch.setattr("fedbcs_monai.predict.page.PICTURES", 1)
    entries = [entry(str(n), tmp_path, [f"odd {n}"]) for n in range(2)]
    entries += [entry("plain", tmp_path, ["odd too"])._replace(picture=None)]
    write_page(tmp_path / "report.html", entries, {}, [], PROVENANCE)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f"<li>{warning}</li>" in page for warning in ("odd 0", "odd 1", "odd too"))
    assert set(re.findall('href="#(study-[^"]+)"', page)) == set(re.findall('id="(study-[^"]+)"', page))


def test_pictures_are_embedded_up_to_a_number(tmp_path, monkeypatch):
    monkeypatch.setattr("fedbcs_monai.predict.page.PICTURES", 2)
    entries = [entry(str(n), tmp_path) for n in range(3)]
    write_page(tmp_path / "report.html", entries, {}, [], PROVENANCE)
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("data:image/jpeg") == 2
