"""Traffic: bytes and prototypes per exchange between server and site."""

from fedbcs_monai.federated.messages import Broadcast, Update
from fedbcs_monai.tensors import Tensors

TRAFFIC = tuple(
    f"{way}_{what}" for way in ("sent", "received") for what in ("weight_bytes", "shared_bytes", "prototypes")
)
"""What is counted, as a site sees it: sent is what leaves it."""


def traffic(broadcast: Broadcast, update: Update) -> dict[str, float]:
    """Bytes of the network, bytes of the method's payload, and the prototypes among it, each way."""
    counts = [
        count
        for message in (update, broadcast)
        for count in (size_bytes(message.weights), size_bytes(message.shared), prototypes(message.shared))
    ]
    return {name: float(count) for name, count in zip(TRAFFIC, counts, strict=True)}


def size_bytes(tensors: Tensors) -> int:
    """Bytes of the values of named tensors; names and transport overhead are not counted."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def prototypes(shared: Tensors) -> int:
    """Vectors that describe a class: those filed under its number, as ``decoder/1`` is.

    A vector (D,) is one prototype, a matrix (S, D) is S.
    """
    return sum(tensor.numel() // tensor.shape[-1] for tensor in class_vectors(shared).values())


def class_vectors(shared: Tensors) -> Tensors:
    """Of what a method shares, the vectors that describe a class: (D,) or (S, D)."""
    return {
        name: tensor
        for name, tensor in shared.items()
        if name.rpartition("/")[2].isdigit() and tensor.ndim and tensor.numel()
    }
