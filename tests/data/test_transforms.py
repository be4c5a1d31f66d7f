"""The project's own transforms."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd as MonaiSpacingd

from fedbcs_monai.data.inferers import NeighbouringSlicesInferer
from fedbcs_monai.data.transforms import Binarised, NeighbouringSlicesd, RGBd, Spacingd, StainJitterd, jitter_stains
from fedbcs_monai.errors import UserError


@pytest.mark.parametrize("top", [1, 255, 65535])
def test_labels_become_0_and_1(top):
    label = Binarised("label")({"label": MetaTensor([[[0.0, top], [top, 0.0]]])})["label"]
    assert label.dtype == torch.uint8
    assert label.flatten().tolist() == [0, 1, 1, 0]


def test_an_empty_label_stays_empty():
    assert not Binarised("label")({"label": torch.zeros(1, 2, 2)})["label"].any()


def test_a_mask_saved_as_rgb_becomes_one_channel():
    assert Binarised("label")({"label": torch.full((3, 2, 2), 255)})["label"].shape == (1, 2, 2)


@pytest.mark.parametrize(
    "values", [[0, 0.5, 1], [0, 1, 2], [0, 1, 255], [0, 127, 255], [-1, 0, 1], [0.0, 1.0, float("nan")], [0, 7, 7]]
)
def test_labels_of_other_values_are_refused_by_file(values):
    label = MetaTensor(torch.tensor(values)[None, None], meta={"filename_or_obj": "some/mask.png"})
    with pytest.raises(UserError, match=r"some/mask.png: a label holds 0 and 1"):
        Binarised("label")({"label": label})


def test_a_label_of_different_channels_is_refused():
    with pytest.raises(UserError, match="one channel"):
        Binarised("label")({"label": torch.eye(3)[:, None]})


def test_a_picture_of_four_channels_is_refused():
    with pytest.raises(UserError, match="grey or RGB"):
        RGBd("image")({"image": torch.zeros(4, 2, 2)})


def test_no_jitter_gives_the_image_back():
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(min=1 / 255)
    torch.testing.assert_close(jitter_stains(image, [1, 1, 1], [0, 0, 0]), image)


def test_more_haematoxylin_darkens_red_most():
    grey = torch.full((3, 1, 1), 0.5)
    red, green, blue = (grey - jitter_stains(grey, [1, 1, 1], [0.1, 0, 0])).flatten().tolist()
    assert red > 0.02
    assert green > blue > 0


def test_jitter_is_drawn_from_its_random_state_and_stays_in_range():
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    transform = StainJitterd("image", sigma=0.5, prob=1.0)
    first, again = (transform.set_random_state(seed=3)({"image": image})["image"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, transform({"image": image})["image"])
    assert 0 <= first.min() <= first.max() <= 1


def test_jitter_of_probability_0_changes_nothing():
    image = torch.rand(3, 4, 4)
    assert StainJitterd("image", prob=0.0)({"image": image})["image"] is image


def test_a_slice_stands_between_its_neighbours_and_ends_repeat():
    volume = torch.arange(4.0).expand(1, 2, 2, 4)
    samples = NeighbouringSlicesd("image", "label", 3)({"image": volume, "label": volume, "case": "a"})
    assert [sample["image"][:, 0, 0].tolist() for sample in samples] == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert [sample["label"][:, 1, 1].tolist() for sample in samples] == [[0], [1], [2], [3]]
    assert {sample["case"] for sample in samples} == {"a"}


def test_slices_share_one_memory():
    samples = NeighbouringSlicesd("image", "label", 5)({"image": torch.rand(1, 4, 4, 9)})
    assert len({sample["image"].untyped_storage().data_ptr() for sample in samples}) == 1
    assert samples[0]["image"].untyped_storage().nbytes() == (9 + 4) * 16 * 4


def test_slices_without_foreground_can_be_left_out():
    label = torch.zeros(1, 2, 2, 5)
    label[..., 3] = 1
    samples = NeighbouringSlicesd("image", "label", 1, foreground_only=True)({"image": label, "label": label})
    assert len(samples) == 1


@pytest.mark.parametrize(("shape", "count", "message"), [((1, 2, 2), 3, "volume"), ((1, 2, 2, 2), 2, "odd")])
def test_what_cannot_be_cut_is_refused(shape, count, message):
    with pytest.raises(UserError, match=message):
        NeighbouringSlicesd("image", "label", count)({"image": torch.zeros(shape)})


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_the_inferer_equals_each_slice_by_hand(depth):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 2, 3, padding=1).double()
    volumes = torch.rand(2, 1, 5, 6, depth, dtype=torch.float64)
    predicted = NeighbouringSlicesInferer(count=3, sw_batch_size=3)(volumes, network)
    assert predicted.shape == (2, 2, 5, 6, depth)
    for b in range(2):
        for sample, d in zip(NeighbouringSlicesd("image")({"image": volumes[b]}), range(depth), strict=True):
            torch.testing.assert_close(predicted[b, ..., d], network(sample["image"][None])[0])


def test_a_case_gets_the_same_result_whatever_it_is_evaluated_with():
    volumes = torch.rand(3, 1, 4, 4, 7, generator=torch.Generator().manual_seed(0))
    network = torch.nn.BatchNorm2d(3, affine=False, track_running_stats=False)  # looks at its batch
    infer = NeighbouringSlicesInferer(count=3, sw_batch_size=4)
    assert torch.equal(infer(volumes, network)[1], infer(volumes[1:2], network)[0])


def test_the_inferer_makes_even_batches():
    sizes = []
    NeighbouringSlicesInferer(1, sw_batch_size=8)(torch.zeros(1, 1, 2, 2, 17), lambda x: sizes.append(len(x)) or x)
    assert sizes == [6, 6, 5]


def test_the_inferer_keeps_the_affine():
    volume = MetaTensor(torch.zeros(1, 1, 2, 2, 3), affine=torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0])))
    assert torch.equal(NeighbouringSlicesInferer(1)(volume, torch.nn.Identity()).affine, volume.affine)


def hosted():
    """What a host hands on: an image from NIfTI, its metadata, and things of its own."""
    image = MetaTensor(torch.rand(1, 4, 4, 4), affine=torch.eye(4), meta={"filename_or_obj": "case.nii.gz"})
    return {
        "image": image,
        "image_meta_dict": {"space": "RAS"},
        "image_path": "case.nii.gz",
        7: "a key that is no text",
    }


def test_spacing_passes_by_what_a_host_adds():
    transform = Spacingd("image", pixdim=[2.0, 2.0, 2.0])
    done = transform(hosted())
    assert set(done) == set(hosted())
    assert (done["image_path"], done[7]) == ("case.nii.gz", "a key that is no text")
    assert done["image"].pixdim.tolist() == [2, 2, 2]
    assert "affine" in done["image_meta_dict"]
    assert transform.inverse(done)["image"].shape == (1, 4, 4, 4)


def test_spacing_is_otherwise_that_of_monai():
    image = hosted()["image"]
    options = {"keys": ["image", "label"], "pixdim": [1.5, 1.5, 3.0], "mode": ["bilinear", "nearest"]}
    ours, theirs = (made(**options)({"image": image, "label": image > 0.5}) for made in (Spacingd, MonaiSpacingd))
    assert all(torch.equal(ours[key], theirs[key]) for key in ("image", "label"))
