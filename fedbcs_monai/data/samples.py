"""Samples and batches: the cases of a site in memory, and batches that a seed determines."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fedbcs_monai.errors import user_error_behind

Transform = Callable[[Any], Any]


class Samples(Dataset[dict[str, Tensor]]):
    """Training samples of one site.

    Args:
        data: MONAI dictionaries, one for each case, as `SiteData.items` gives.
        preprocessing: deterministic; a case's dictionary to `image` and `label` tensors.
        slicing: a preprocessed case to a list of samples (`NeighbouringSlicesd`); None where a case is one sample.
        augmentation: random; a sample to a sample. None changes nothing.
        cache: read every case now and keep it; otherwise cases are read as they are asked for.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        preprocessing: Transform,
        slicing: Transform | None = None,
        augmentation: Transform | None = None,
        cache: bool = True,
    ) -> None:
        self.data = tuple(data)
        self.preprocessing = preprocessing
        self.slicing = slicing
        self.augmentation = augmentation
        self._cached: list[dict[str, Tensor]] | None = None
        self._last: tuple[int, list[dict[str, Tensor]]] = (-1, [])
        if cache:
            self._cached = [sample for number in range(len(self.data)) for sample in self._read(number)]
            self._places: list[tuple[int, int]] = []
        else:
            counts = [len(self._read(n)) if slicing else 1 for n in range(len(self.data))]
            self._places = [(n, index) for n, count in enumerate(counts) for index in range(count)]

    def __len__(self) -> int:
        return len(self._places) if self._cached is None else len(self._cached)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One sample, augmented by the transforms' own random state.

        Returns:
            `image`: float32 `(C, H, W)`; `label`: int64 `(1, H, W)`; both plain tensors.
        """
        sample: dict[str, Any] = dict(self._sample(index))
        if self.augmentation is not None:
            sample = self.augmentation(sample)
        return {"image": _plain(sample["image"]).float(), "label": _plain(sample["label"]).long()}

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        """One sample, augmented as `seed` says and as nothing else does."""
        if isinstance(self.augmentation, Randomizable):
            self.augmentation.set_random_state(seed=seed)
        return self[index]

    def batch_sizes(self, most: int) -> list[int]:
        """Sizes of the batches of one epoch: full ones, and one of what is left."""
        full, left = divmod(len(self), most)
        return [most] * full + [left] * (left > 0)

    def _sample(self, index: int) -> dict[str, Tensor]:
        if self._cached is not None:
            return self._cached[index]
        number, place = self._places[index]
        if self._last[0] != number:
            self._last = (number, self._read(number))
        return self._last[1][place]

    def _read(self, number: int) -> list[dict[str, Tensor]]:
        try:
            case = self.preprocessing(dict(self.data[number]))
            samples = [case] if self.slicing is None else self.slicing(case)
        except RuntimeError as error:
            mendable = user_error_behind(error)
            if mendable is None:
                raise
            raise mendable from None
        return [{key: _plain(sample[key]) for key in ("image", "label")} for sample in samples]


class Pooled(Dataset[dict[str, Tensor]]):
    """The samples of several sites as if they were one's, in batches of the same sizes as the sites make apart.

    So an epoch takes as many optimizer steps as one epoch at every site.

    Args:
        parts: of each site.
        steps_of_one: take only as many batches an epoch as a site does on average, rounded up; other samples each time.
    """

    def __init__(self, parts: Sequence[Samples], steps_of_one: bool = False) -> None:
        self.parts = tuple(parts)
        self.steps_of_one = steps_of_one
        self._ends = list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        """One sample, augmented as `seed` says and as nothing else does."""
        number = bisect_right(self._ends, index)
        return self.parts[number].draw(index - (self._ends[number - 1] if number else 0), seed)

    def batch_sizes(self, most: int) -> list[int]:
        """Sizes of the batches of one epoch: those of every part, or every so many of them."""
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
        A loader of dictionaries with `image` `(B, C, H, W)` and `label` `(B, 1, H, W)`.
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
        pin_memory=pin_memory,
        generator=generator,
    )


class _Epoch(Dataset[dict[str, Tensor]]):
    """The samples in the order of one epoch, each with its seed."""

    def __init__(self, samples: Samples | Pooled, order: Sequence[int], seeds: Sequence[int]) -> None:
        self.samples = samples
        self.order = order
        self.seeds = seeds

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return self.samples.draw(self.order[position], self.seeds[position])


def _plain(value: Any) -> Tensor:
    return value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)
