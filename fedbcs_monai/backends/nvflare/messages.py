"""Messages as NVFlare's FLModel: tensors become the model's parameters, the header its meta data.

NVFlare copies a parameter several times on its way. Large ones go in pieces, so that it is small ones that it copies.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from torch import Tensor

from fedbcs_monai.backends.nvflare.wire import broadcast_of, head_of, tensors_of, update_of
from fedbcs_monai.federated.messages import Broadcast, Update
from fedbcs_monai.tensors import PIECE, Pieces, Stored, pieces_of

HEADER = "fedbcs"
SHAPES = "fedbcs_shapes"
"""In the meta data: the shapes of tensors that go in pieces. ``weights/w#0`` is the first piece of ``weights/w``."""


def model_of(message: Broadcast | Update) -> FLModel:
    """A message as a model."""
    params, shapes = {}, {}
    for name, tensor in tensors_of(message).items():
        if tensor.numel() <= PIECE:
            params[name] = _shared(tensor)
        else:
            shapes[name] = list(tensor.shape)
            for number, read in enumerate(pieces_of(tensor).readers):
                params[_piece(name, number)] = _shared(read())
    return FLModel(
        params=params,
        params_type=ParamsType.FULL,
        current_round=message.round if isinstance(message, Broadcast) else None,
        meta={HEADER: head_of(message), SHAPES: shapes},
    )


def broadcast_in(model: FLModel) -> Broadcast:
    """The broadcast that a model was made of.

    Raises:
        KeyError: a piece is missing.
        ValueError: a piece has another size than it should.
    """
    return broadcast_of(model.meta[HEADER], _whole(model))


def update_in(model: FLModel) -> Update:
    """The update that a model was made of; tensors that NVFlare has left on disk are read when they are looked at.

    Raises:
        KeyError: a piece is missing.
        ValueError: a piece has another size than it should.
    """
    update = update_of(model.meta[HEADER], _whole(model))
    return replace(update, weights=_stored(update.weights), shared=_stored(update.shared))


def _whole(model: FLModel) -> dict[str, Any]:
    """The parameters of a model, with pieces put together."""
    params = dict(model.params or {})
    for name, shape in model.meta.get(SHAPES, {}).items():
        count = math.ceil(math.prod(shape) / PIECE)
        params[name] = _together([params.pop(_piece(name, number)) for number in range(count)], tuple(shape))
    return params


def _stored(params: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Tensors of a message: those that lie on disk are read when they are looked at."""
    if not any(_is_on_disk(value) for value in params.values()):
        return params
    return Stored({name: _reader(value) for name, value in params.items()})


def _shared(tensor: Tensor) -> Tensor:
    """The same memory, also behind a deep copy, which NVFlare makes of every broadcast to guard it from filters.

    Its own filters put new tensors in the place of old ones, and so must those of a server's policy.
    """
    shared = tensor.detach()
    shared.__deepcopy__ = lambda memo: tensor  # type: ignore[method-assign]
    return shared


def _piece(name: str, number: int) -> str:
    return f"{name}#{number}"


def _together(values: Sequence[Any], shape: tuple[int, ...]) -> Any:
    pieces = Pieces([_reader(value) for value in values], shape)
    if any(read().shape != (PIECE,) for read in pieces.readers[:-1]):
        raise ValueError(f"a piece of a tensor of shape {shape} has not {PIECE} elements")
    return pieces if any(_is_on_disk(value) for value in values) else pieces()


def _is_on_disk(value: Any) -> bool:
    return isinstance(value, Pieces) or hasattr(value, "materialize")


def _reader(value: Any) -> Callable[[], Tensor]:
    if isinstance(value, Pieces):
        return value
    return getattr(value, "materialize", partial(_itself, value))


def _itself(value: Tensor) -> Tensor:
    return value
