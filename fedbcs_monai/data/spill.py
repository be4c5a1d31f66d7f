"""Spill: move tensors out of memory into memory-mapped temporary files."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, UntypedStorage

from fedbcs_monai.errors import UserError


def spilled(samples: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The same samples, which lie on disk and come into memory page by page, as they are read.

    Samples that are views of one tensor stay so, and it is written once. The files lie in the system's temporary folder
    (``TMPDIR`` names another). They have no name there any more, and are gone with the last sample, or with the process
    however it ends; on Windows they stay.

    Raises:
        UserError: there is no room for them.
    """
    tensors = [tensor for sample in samples for tensor in sample.values() if tensor.device.type == "cpu"]
    storages = {storage.data_ptr(): storage for storage in (tensor.untyped_storage() for tensor in tensors)}
    mapped = {at: _mapped(storage) for at, storage in storages.items() if storage.nbytes()}
    return [{key: _over(mapped, tensor) for key, tensor in sample.items()} for sample in samples]


def _over(mapped: dict[int, UntypedStorage], tensor: Tensor) -> Tensor:
    """A tensor over the mapped copy of its storage."""
    storage = mapped.get(tensor.untyped_storage().data_ptr())
    if storage is None:  # empty, or on another device
        return tensor
    empty = torch.empty(0, dtype=tensor.dtype)
    return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def _mapped(storage: UntypedStorage) -> UntypedStorage:
    content = np.asarray(torch.empty(0, dtype=torch.uint8).set_(storage))
    try:
        with tempfile.NamedTemporaryFile(prefix="fedbcs-", delete=False) as file:
            file.write(content.data)
    except OSError as error:
        raise UserError(
            f"{tempfile.gettempdir()}: no room for decoded cases ({error.strerror}); name another folder in TMPDIR, or "
            "set cache to true to keep them in memory"
        ) from None
    copy = UntypedStorage.from_file(file.name, False, storage.nbytes())
    assert isinstance(copy, UntypedStorage)
    if os.name == "posix":  # elsewhere a file that is mapped cannot go
        Path(file.name).unlink()
    return copy
