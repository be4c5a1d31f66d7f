"""Workflows: a copy of the folder trains at one site, evaluates and predicts, with the scores of the package."""

import csv

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from fedbcs_monai import Predictor
from fedbcs_monai.backends.evaluate import evaluate
from fedbcs_monai.data import read_sites


def test_training_leaves_weights_that_load_as_weights_only(trained):
    weights = torch.load(trained / "models" / "model.pt", weights_only=True)
    assert {"backbone.final_conv.weight", "backbone.final_conv.bias"} <= weights.keys()


def test_evaluation_scores_as_fedbcs_evaluate_does(trained, task, small, run, as_trained):
    run(
        trained,
        small[task].files("train", "evaluate"),
        **small[task].train,
        dataset_dir=str(small[task].sites.parent),
        site="Alder",
    )
    with (trained / "eval" / "val_mean_dice_raw.csv").open(newline="") as file:
        found = {row["filename"]: float(row["class0"]) for row in csv.DictReader(file)}
    ours = evaluate(as_trained, sites=small[task].sites, device="cpu")["Alder"]
    assert found == pytest.approx({score.case: score.dice for score in ours}, abs=1e-6)


def test_inference_writes_the_masks_of_fedbcs_predict(trained, task, small, run, as_trained):
    site = read_sites(small[task].sites)["Alder"]
    images = site.root / "Alder" / "images"
    run(trained, small[task].files("inference"), **small[task].inference, dataset_dir=str(images))
    predictor, foreground = Predictor(as_trained, device="cpu"), []
    for image in sorted(images.iterdir()):
        name = image.name.partition(".")[0]
        if task == "prostate":
            mask = nibabel.load(trained / "eval" / f"{name}_mask.nii.gz")
            np.testing.assert_allclose(mask.affine, nibabel.load(image).affine, atol=1e-4)
            pixels = np.asarray(mask.dataobj)
        else:
            pixels = np.asarray(Image.open(trained / "eval" / f"{name}_mask.png")) / 255
        np.testing.assert_array_equal(pixels, predictor(image).mask)
        foreground.append(pixels.mean())
    assert 0 < np.mean(foreground) < 1
