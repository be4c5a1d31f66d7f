"""Messages as NVFlare carries them: the tensors are a model's parameters, the head lies in its meta data."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from torch import Tensor

from fedbcs_monai.drivers.flare.post import Post
from fedbcs_monai.tensors import Stored

HEAD = "fedbcs"


def stored(params: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Parameters that came: those that NVFlare has left on disk are read when they are looked at."""
    if not any(hasattr(value, "materialize") for value in params.values()):
        return params
    return Stored({name: getattr(value, "materialize", partial(_itself, value)) for name, value in params.items()})


def _itself(value: Tensor) -> Tensor:
    return value


def model_of(post: Post) -> FLModel:
    """A message as a model."""
    return FLModel(
        params=dict(post.tensors),
        params_type=ParamsType.FULL,
        current_round=post.head.get("round"),
        meta={HEAD: dict(post.head)},
    )


def post_of(model: FLModel) -> Post:
    """A model as the message that it was."""
    return Post(model.meta[HEAD], model.params or {})
