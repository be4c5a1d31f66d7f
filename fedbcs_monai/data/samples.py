"""Samples: the decoded training samples of a site, and batches that depend on the seed alone."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from fedbcs_monai.data.spill import spilled
from fedbcs_monai.errors import UserError, user_error_behind
from fedbcs_monai.files import check_case

Transform = Callable[[Any], Any]
Sample = dict[str, Tensor]
Drawn = Sample | list[Sample]
"""The result of augmenting a sample: one sample or several."""


class Samples(Dataset[Drawn]):
    """Training samples of one site.

    Where cases are sliced, each is decoded once. Without `cache` what was decoded waits in temporary files
    (`spilled`): a volume takes as many bytes of disk as it would take of memory.

    Args:
        data: MONAI dictionaries, one for each case, as `SiteData.items` gives.
        preprocessing: deterministic; a case's dictionary to `image` and `label` tensors.
        slicing: a preprocessed case to a list of samples (`NeighbouringSlicesd`); None where a case is one sample. If
            it is random, it draws the same samples of a case each time.
        augmentation: random; a sample to a sample, or to a list of them (`RandCropByPosNegLabeld`), all of which go
            into the batch. None changes nothing.
        cache: keep what is decoded in memory; otherwise slices wait on disk, and cases that are one sample are read as
            they are asked for, once an epoch.
        seed: of a random `slicing`.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        preprocessing: Transform,
        slicing: Transform | None = None,
        augmentation: Transform | None = None,
        cache: bool = True,
        seed: int = 0,
    ) -> None:
        self.data = tuple(data)
        self.preprocessing = preprocessing
        self.slicing = slicing
        self.augmentation = augmentation
        self.seed = seed
        self._kept: list[Sample] | None = None
        if cache or slicing:
            read = map(self._read, range(len(self.data)))
            self._kept = [sample for samples in read for sample in (samples if cache else spilled(samples))]

    def __len__(self) -> int:
        return len(self.data) if self._kept is None else len(self._kept)

    def __getitem__(self, index: int) -> Drawn:
        """One sample, augmented by the transforms' own random state; a list where augmentation makes one.

        Returns:
            `image`: float32 `(C, H, W)`; `label`: int64 `(1, H, W)`; both plain tensors.
        """
        drawn: Any = dict(self._kept[index] if self._kept is not None else self._read(index)[0])
        if self.augmentation is not None:
            drawn = self.augmentation(drawn)
        return [_typed(sample) for sample in _flat(drawn)] if isinstance(drawn, list) else _typed(drawn)

    def draw(self, index: int, seed: int) -> Drawn:
        """One sample, augmented as determined by `seed` alone."""
        _set_seed(self.augmentation, seed)
        return self[index]

    def batch_sizes(self, most: int) -> list[int]:
        """Sizes of the batches of one epoch, in samples before augmentation: full ones, and one of what is left."""
        full, left = divmod(len(self), most)
        return [most] * full + [left] * (left > 0)

    def _read(self, number: int) -> list[Sample]:
        check_case(self.data[number])
        _set_seed(self.slicing, int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))
        try:
            case = self.preprocessing(dict(self.data[number]))
            samples = _flat(case if self.slicing is None else self.slicing(case))
        except RuntimeError as error:
            correctable = user_error_behind(error)
            if correctable is None:
                raise
            raise correctable from None
        if self.slicing is None and len(samples) != 1:
            raise UserError(f"preprocessing makes {len(samples)} samples of a case; do that in slicing or augmentation")
        return [{key: _plain(sample[key]) for key in ("image", "label")} for sample in samples]


class Pooled(Dataset[Drawn]):
    """The samples of several sites as if they were one's, in batches of the same sizes as the sites make apart.

    So an epoch takes as many optimizer steps as one epoch at every site.

    Args:
        parts: of each site.
        steps_of_one: take only as many batches per epoch as a site does on average, rounded up; others in each epoch.
    """

    def __init__(self, parts: Sequence[Samples], steps_of_one: bool = False) -> None:
        self.parts = tuple(parts)
        self.steps_of_one = steps_of_one
        self._ends = list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def draw(self, index: int, seed: int) -> Drawn:
        """One sample, augmented as determined by `seed` alone."""
        number = bisect_right(self._ends, index)
        return self.parts[number].draw(index - (self._ends[number - 1] if number else 0), seed)

    def batch_sizes(self, most: int) -> list[int]:
        """Sizes of the batches of one epoch: those of every part, or of an even selection of them."""
        sizes = [size for part in self.parts for size in part.batch_sizes(most)]
        return sizes[:: len(self.parts)] if self.steps_of_one else sizes


def batches(
    dataset: Samples | Pooled,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    workers: int = 0,
    drop_last: bool = False,
    pin_memory: bool = False,
) -> DataLoader[dict[str, Tensor]]:
    """The samples of one epoch in batches, determined by `seed` alone.

    Order and augmentation are drawn here, one seed for each sample, so the bits depend neither on what was drawn before
    nor on the number of workers. Reading on gives the same epoch again: take another seed for the next. The global
    random state of torch is not touched.

    Returns:
        A loader of dictionaries with `image` `(B, C, H, W)` and `label` `(B, 1, H, W)`. B is the batch size, or that
        many times the samples that augmentation makes of one.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(dataset)
    order = torch.randperm(count, generator=generator).tolist() if shuffle else list(range(count))
    seeds = torch.randint(2**32, (count,), generator=generator).tolist()
    sizes = [size for size in dataset.batch_sizes(batch_size) if size == batch_size or not drop_last]
    return DataLoader(
        _Epoch(dataset, order, seeds),
        batch_sampler=[list(range(end - size, end)) for size, end in zip(sizes, accumulate(sizes), strict=True)],
        num_workers=workers,
        collate_fn=_collated,
        pin_memory=pin_memory,
        generator=generator,
    )


class _Epoch(Dataset[Any]):
    """The samples in the order of one epoch, each with its seed."""

    def __init__(self, samples: Samples | Pooled, order: Sequence[int], seeds: Sequence[int]) -> None:
        self.samples = samples
        self.order = order
        self.seeds = seeds

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> Drawn:
        return self.samples.draw(self.order[position], self.seeds[position])


def _collated(drawn: Sequence[Drawn]) -> Sample:
    samples = _flat(list(drawn))
    if not samples:
        raise UserError("augmentation leaves no sample of a whole batch")
    for key in samples[0]:
        sizes = sorted({tuple(sample[key].shape) for sample in samples})
        if len(sizes) > 1:
            shown = " and ".join(str(size) for size in sizes[:2])
            raise UserError(
                f"one batch holds samples of one size, got {key}s of {shown}; crop or pad them in augmentation, or set "
                "batch_size to 1"
            )
    batch: Sample = default_collate(samples)
    return batch


def _flat(made: Any) -> list[Any]:
    """The results of transforms for a case or a sample, from nested lists one by one."""
    return [sample for part in made for sample in _flat(part)] if isinstance(made, list | tuple) else [made]


def _set_seed(transform: Transform | None, seed: int) -> None:
    if isinstance(transform, Randomizable):
        transform.set_random_state(seed=seed)


def _typed(sample: Mapping[str, Any]) -> Sample:
    return {"image": _plain(sample["image"]).float(), "label": _plain(sample["label"]).long()}


def _plain(value: Any) -> Tensor:
    return value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)
