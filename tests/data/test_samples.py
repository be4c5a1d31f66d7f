"""Samples and batches: a seed determines everything, and nothing else does."""

import tempfile

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Lambdad, RandCropByPosNegLabeld, RandFlipd, RandGaussianNoised, RandRotate90d

from fedbcs_monai.data.samples import Pooled, Samples, batches
from fedbcs_monai.data.spill import spilled
from fedbcs_monai.data.transforms import Binarised, NeighbouringSlicesd
from fedbcs_monai.errors import UserError

ITEMS = [{"image": n, "label": n, "case": str(n)} for n in range(10)]


def made_up(item):
    """A case whose pixels are known from its number."""
    image = torch.arange(16.0).reshape(1, 4, 4) + 100 * item["image"]
    return {"image": MetaTensor(image), "label": MetaTensor((image % 2).to(torch.uint8)), "case": item["case"]}


def augmentation():
    return Compose(
        [
            RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
            RandRotate90d(["image", "label"], prob=0.7),
            RandGaussianNoised("image", prob=0.5),
        ]
    )


def samples(**options):
    return Samples(ITEMS, made_up, **options)


def epoch(dataset, seed=1, **options):
    return list(batches(dataset, 3, seed, **options))


def same(first, second):
    return all(torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)


def test_a_sample_is_two_plain_tensors():
    sample = samples(augmentation=augmentation())[0]
    assert {key: (type(value), value.dtype) for key, value in sample.items()} == {
        "image": (torch.Tensor, torch.float32),
        "label": (torch.Tensor, torch.int64),
    }


def test_an_epoch_holds_every_sample_once():
    images = torch.cat([batch["image"] for batch in epoch(samples())])
    assert sorted((images[:, 0, 0, 0] / 100).tolist()) == list(range(10))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_seed_gives_the_same_bits(workers):
    dataset = samples(augmentation=augmentation())
    first = epoch(dataset, workers=workers)
    dataset[3]  # drawn in between
    torch.rand(1)
    assert same(first, epoch(dataset, workers=workers))
    assert same(first, epoch(samples(augmentation=augmentation(), cache=False)))


def test_another_seed_gives_another_epoch():
    dataset = samples(augmentation=augmentation())
    assert not same(epoch(dataset, seed=1), epoch(dataset, seed=2))


def test_without_shuffling_augmentation_still_follows_the_seed():
    dataset = samples(augmentation=augmentation())
    assert not same(epoch(dataset, 1, shuffle=False), epoch(dataset, 2, shuffle=False))
    assert same(epoch(samples(), 1, shuffle=False), epoch(samples(), 2, shuffle=False))


def test_drawing_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    epoch(samples(augmentation=augmentation()))
    assert torch.equal(torch.get_rng_state(), state)


def test_augmentation_does_not_reach_the_cache():
    dataset = samples(augmentation=Compose([RandFlipd(["image", "label"], prob=1.0), augmentation()]))
    epoch(dataset)
    dataset.augmentation = None
    assert same([dataset[n] for n in range(10)], [samples()[n] for n in range(10)])


def test_image_and_label_are_augmented_alike():
    dataset = samples(augmentation=Compose([RandRotate90d(["image", "label"]), RandFlipd(["image", "label"], 0.5)]))
    for batch in epoch(dataset):
        assert torch.equal(batch["image"] % 2, batch["label"].float())


def test_a_short_last_batch_can_be_dropped():
    assert [len(batch["image"]) for batch in epoch(samples())] == [3, 3, 3, 1]
    assert len(epoch(samples(), drop_last=True)) == 3


@pytest.mark.parametrize("cache", [True, False])
def test_a_volume_is_as_many_samples_as_slices(cache):
    volume = Lambdad(["image", "label"], lambda n: torch.full((1, 2, 2, n + 1), float(n % 2)))
    dataset = Samples(ITEMS[:3], volume, NeighbouringSlicesd("image", count=3), cache=cache)
    assert len(dataset) == 1 + 2 + 3
    assert dataset[5]["image"].shape == (3, 2, 2)
    assert dataset[1]["image"].unique().tolist() == [1]


def test_a_cached_case_is_read_once():
    seen = []
    dataset = Samples(ITEMS, lambda item: seen.append(item["case"]) or made_up(item))
    epoch(dataset)
    assert seen == [item["case"] for item in ITEMS]


def test_what_the_user_can_mend_arrives_unwrapped():
    spoilt = Compose(
        [lambda item: {"image": torch.zeros(1, 2, 2), "label": torch.eye(2)[None] / 2}, Binarised("label")]
    )
    with pytest.raises(UserError, match="threshold it"):
        Samples(ITEMS, spoilt)


def test_other_failures_are_not_swallowed():
    with pytest.raises(RuntimeError, match="applying transform"):
        Samples(ITEMS, Compose([lambda item: item["no such key"]]))


def test_pooled_samples_are_those_of_their_parts_in_order():
    parts = [Samples(ITEMS[:4], made_up, augmentation=augmentation()), Samples(ITEMS[4:], made_up)]
    pooled, whole = Pooled(parts), Samples(ITEMS, made_up)
    assert len(pooled) == len(whole) == 10
    assert [pooled.draw(n, 0)["image"][0, 0, 0].item() // 100 for n in range(4, 10)] == list(range(4, 10))
    assert same([pooled.draw(2, 5)], [parts[0].draw(2, 5)])


def test_pooled_batches_have_the_sizes_of_their_parts():
    pooled = Pooled([Samples(ITEMS[:4], made_up), Samples(ITEMS[4:], made_up)])
    assert [len(batch["label"]) for batch in epoch(pooled)] == [3, 1, 3, 3]
    images = torch.cat([batch["image"] for batch in epoch(pooled)])
    assert sorted((images[:, 0, 0, 0] / 100).tolist()) == list(range(10))


# Transforms that make several samples of one.


def crops(count=3):
    return RandCropByPosNegLabeld(["image", "label"], "label", (2, 2), pos=1, neg=1, num_samples=count)


@pytest.mark.parametrize("nested", [False, True], ids=["alone", "composed"])
def test_all_samples_that_augmentation_makes_of_one_go_into_its_batch(nested):
    augmented = Compose([crops(), RandFlipd(["image", "label"], prob=0.5)]) if nested else crops()
    dataset = samples(augmentation=augmented)
    found = epoch(dataset)
    assert (len(dataset), dataset.batch_sizes(3)) == (10, [3, 3, 3, 1])
    assert [tuple(batch["image"].shape) for batch in found] == [(9, 1, 2, 2)] * 3 + [(3, 1, 2, 2)]
    for batch in found:
        assert torch.equal(batch["image"] % 2, batch["label"].float())
        numbers = (batch["image"].amin((1, 2, 3)) // 100).reshape(-1, 3)
        assert (numbers == numbers[:, :1]).all()  # the crops of one sample stand side by side


@pytest.mark.parametrize("workers", [0, 2])
def test_several_samples_of_one_follow_the_seed_alone(workers):
    first = epoch(samples(augmentation=crops()))
    assert same(first, epoch(samples(augmentation=crops(), cache=False), workers=workers))
    assert not same(first, epoch(samples(augmentation=crops()), seed=2))


@pytest.mark.parametrize("cache", [True, False])
def test_a_slicing_that_draws_follows_its_seed(cache):
    def cut(seed):
        dataset = samples(slicing=crops(), cache=cache, seed=seed)
        return [dataset[n] for n in range(len(dataset))]

    assert len(cut(0)) == 30
    assert same(cut(0), cut(0))
    assert not same(cut(0), cut(1))


def test_crops_of_slices_are_samples_too():
    slices_then_crops = Compose([NeighbouringSlicesd("image", count=1), crops(2)])
    assert len(Samples(ITEMS[:2], volume, slices_then_crops)) == 2 * 5 * 2


def test_a_slicing_may_make_one_sample():
    assert len(samples(slicing=lambda case: case)) == len(ITEMS)


def test_a_preprocessing_that_makes_several_samples_is_refused():
    with pytest.raises(UserError, match="makes 2 samples of a case; do that in slicing or augmentation"):
        Samples(ITEMS, lambda item: [made_up(item), made_up(item)])


def test_samples_of_two_sizes_are_no_batch():
    def growing(item):
        return {key: torch.zeros(1, 2, 2 + item["image"]) for key in ("image", "label")}

    with pytest.raises(UserError, match=r"samples of one size, got images of \(1, 2, \d+\) and \(1, 2, \d+\); crop or"):
        epoch(Samples(ITEMS, growing))


# Without a cache.


def volume(item):
    """A volume of 5 slices whose voxels are known from its number."""
    image = torch.arange(80.0).reshape(1, 4, 4, 5) + 100 * item["image"]
    return {"image": MetaTensor(image), "label": MetaTensor((image % 2).to(torch.uint8)), "case": item["case"]}


def sliced(**options):
    return Samples(ITEMS, volume, NeighbouringSlicesd("image", count=3), augmentation(), **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_cache_slices_have_the_same_bits(workers):
    assert same(epoch(sliced()), epoch(sliced(cache=False), workers=workers))


def test_without_a_cache_a_volume_is_decoded_once():
    seen = []
    dataset = Samples(
        ITEMS, lambda item: seen.append(item["case"]) or volume(item), NeighbouringSlicesd("image"), cache=False
    )
    for seed in (1, 2):
        epoch(dataset, seed)
    assert seen == [item["case"] for item in ITEMS]


def test_without_a_cache_a_case_that_is_one_sample_is_decoded_once_an_epoch():
    seen = []
    dataset = Samples(ITEMS, lambda item: seen.append(item["case"]) or made_up(item), cache=False)
    assert seen == []
    epoch(dataset)
    assert sorted(seen) == [item["case"] for item in ITEMS]


def test_what_waits_on_disk_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dataset = sliced(cache=False)
    assert list(tmp_path.iterdir()) == []
    assert len(epoch(dataset)) == 17


def test_samples_that_are_views_of_one_tensor_are_written_once():
    base = torch.arange(12.0).reshape(3, 4)
    parts = [{"image": base[n : n + 2], "label": base.T[n]} for n in range(2)]
    found = spilled([*parts, {"image": torch.zeros(0), "label": base}])
    assert same(found, [*parts, {"image": torch.zeros(0), "label": base}])
    assert len({sample["label"].untyped_storage().data_ptr() for sample in found}) == 1
    assert found[0]["label"].untyped_storage().data_ptr() != base.untyped_storage().data_ptr()


def test_a_disk_without_room_says_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"gone: no room for decoded cases .*TMPDIR, or set cache to true"):
        sliced(cache=False)
