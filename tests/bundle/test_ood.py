"""What a run knows of its sites goes into its bundle."""

from pathlib import Path

import pytest

from fedbcs_monai import Predictor
from fedbcs_monai.backends.local import train
from fedbcs_monai.bundle import write_bundle
from fedbcs_monai.ood.file import read_site_styles

pytestmark = pytest.mark.slow


def test_a_bundle_says_of_an_image_what_its_run_says(tiny, tmp_path):
    config = tiny(rounds=1, examples=0)
    folder = train(config)
    made = write_bundle(folder, tmp_path / "bundle").path
    path = next(Path(config.sites).parent.glob("Elm/images/*.png"))
    run, bundle = (Predictor(model, device="cpu")(path).statistics["ood"] for model in (folder, made))
    assert list(bundle["sites"]) == list(run["sites"])
    assert bundle["sites"] == pytest.approx(run["sites"])


def test_the_bundle_of_one_site_knows_that_site_alone(tiny, tmp_path):
    folder = train(tiny("FedBN", rounds=1, examples=0))
    made = write_bundle(folder, tmp_path / "bundle", site="Birch").path
    assert list(read_site_styles(made / "models" / "model.pt")) == ["Birch"]
