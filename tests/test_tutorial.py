"""The tutorial: it is stored without outputs, and every cell of it runs."""

import json
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def test_the_tutorial_is_stored_without_outputs():
    cells = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.filterwarnings("ignore")  # of the notebook's kernel and its messages
def test_every_cell_of_the_tutorial_runs_and_the_last_shows_masks(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [
        "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert not any("rror" in text for text in said)
    assert "case_000_mask.nii.gz" in said[-1]
    (work,) = tmp_path.glob("fedbcs-tutorial-*")
    assert (work / "report.html").is_file()
    assert all((work / method / "report.html").is_file() for method in ("FedAvg", "FedBCS"))
    assert len(list((work / "masks").glob("*_mask.nii.gz"))) == 3
