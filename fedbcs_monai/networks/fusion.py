"""Context fusion (CDPA): combine several levels in one embedding, without materializing it.

The fused embedding of a stream (encoder or decoder) is, with ``up`` for nearest resizing and ``[a, b]`` for
concatenation,

    e = [ conv_1[f_1, up g], conv_2[f_2, up g], ... ]                    (Zhao et al., AAAI 2026, eq. 10-12)

at the size of one level, 768 channels wide in the authors' network. Its losses ask only for ``e . q`` with a few
prototypes ``q``, for ``|e|^2``, and for class means. The convolutions are 1x1, so with ``conv_k[f, g] = A f + B g + b``

    e . q  = sum_k  f_k . A'q_k + up(g . B'q_k) + b . q_k
    |e|^2  = sum_k  f_k . (A'A f_k + 2 up(A'B g) + 2 A'b) + up(g . (B'B g + 2 B'b)) + |b|^2

and the class sums of ``e`` are the fused class sums. Every term is computed at its own level's size, and only where an
anchor looks. `ContextFusion.forward` is the definition; the other methods are the same numbers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks.choices import known

PAIRINGS = ("deepest", "adjacent")
ALIGNMENTS = ("authors", "finest")


class Products(NamedTuple):
    """What the losses ask of N embeddings ``e`` and P prototypes ``q``.

    Args:
        dot: ``e . q``, (N, P).
        square: ``|e|^2``, (N,), never negative.
    """

    dot: Tensor
    square: Tensor


class ClassSums(NamedTuple):
    """Sums of embeddings per class, and how many were summed.

    Args:
        sums: (K, D).
        counts: (K,).
    """

    sums: Tensor
    counts: Tensor


class ContextFusion(nn.Module):
    """One stream's levels to one embedding (Zhao et al., AAAI 2026, eq. 10-12).

    Args:
        channels: channels of the stream's levels, shallow first; the last is the deepest. With one level there is no
            convolution and the embedding is that level's feature, as in the authors' code.
        width: embedding channels for each level but the deepest (authors: 256).
        grid: the level at whose size the embedding lives: 0 is the finest (encoder in the authors' code), -2 the one
            above the deepest (decoder in the authors' code).
        pairing: what a level is concatenated with: ``deepest`` level (authors' code) or the ``adjacent`` deeper one
            (eq. 10).
    """

    def __init__(self, channels: Sequence[int], width: int = 256, grid: int = 0, pairing: str = "deepest") -> None:
        super().__init__()
        known("pairing", pairing, PAIRINGS)
        last = len(channels) - 1
        self.partners = [last if pairing == "deepest" else k + 1 for k in range(last)]
        self.convs = nn.ModuleList(nn.Linear(channels[k] + channels[p], width) for k, p in enumerate(self.partners))
        self.channels = tuple(channels)
        self.grid = grid % len(channels) if last else 0

    @property
    def dimensions(self) -> int:
        """Length D of an embedding."""
        return sum(conv.out_features for conv in self._linears()) or self.channels[-1]

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """The embedding as it is defined, built in full: (B, c_k, *level size) each to (B, D, *grid size)."""
        size = levels[self.grid].shape[2:]
        fused = []
        for level, partner, conv in zip(levels, self.partners, self._linears(), strict=False):
            joint = torch.cat([level, nearest(levels[partner], level.shape[2:])], dim=1)
            fused.append(nearest(conv(joint.movedim(1, -1)).movedim(-1, 1), size))
        return torch.cat(fused, dim=1) if fused else levels[-1]

    def products(self, levels: Sequence[Tensor], anchors: Tensor, prototypes: Tensor) -> Products:
        """Dot products and squared lengths of the embeddings at some pixels, without building them.

        Args:
            levels: features, (B, c_k, *level size), shallow first.
            anchors: distinct flat positions in (B, *grid size), (N,).
            prototypes: (P, D); no gradient is needed for them.
        """
        size = levels[self.grid].shape[2:]
        if not self.partners:
            feature = gather(levels[-1], anchors)
            return Products(feature @ prototypes.T, feature.square().sum(1))
        dot = prototypes.new_zeros(())
        square = prototypes.new_zeros(())
        for k, (conv, q) in enumerate(zip(self._linears(), prototypes.chunk(len(self.partners), dim=1), strict=True)):
            level, partner = levels[k], levels[self.partners[k]]
            cells, back = _cells(anchors, size, level.shape)
            f = gather(level, cells)
            deep_cells, deep_back = _cells(cells, level.shape[2:], partner.shape)
            g = gather(partner, deep_cells)
            a, b = conv.weight[:, : level.shape[1]], conv.weight[:, level.shape[1] :]
            deep_dot = g @ (q @ b).T + q @ conv.bias
            deep_square = (g * (g @ (b.T @ b) + 2 * conv.bias @ b)).sum(1) + conv.bias.square().sum()
            cross = 2 * (g @ (b.T @ a) + conv.bias @ a)
            level_dot = f @ (q @ a).T + deep_dot.index_select(0, deep_back)
            level_square = (f * (f @ (a.T @ a) + cross.index_select(0, deep_back))).sum(1)
            level_square = level_square + deep_square.index_select(0, deep_back)
            dot = dot + level_dot.index_select(0, back)
            square = square + level_square.index_select(0, back)
        return Products(dot, square.clamp_min(0))

    @torch.no_grad()
    def class_sums(self, levels: Sequence[Tensor], classes: Tensor) -> ClassSums:
        """Sums of the embedding over the pixels of each class (eq. 9, 11), without building it.

        Args:
            levels: features, (B, c_k, *level size), shallow first.
            classes: one-hot labels at the grid's size, (B, K, *grid size), floating point.
        """
        counts = classes.flatten(2).sum((0, 2))
        if not self.partners:
            return ClassSums(_weighted_sums(levels[-1], classes), counts)
        parts = []
        for k, (conv, partner) in enumerate(zip(self._linears(), self.partners, strict=True)):
            shares = nearest_adjoint(classes, levels[k].shape[2:])
            deep_shares = nearest_adjoint(shares, levels[partner].shape[2:])
            joint = torch.cat([_weighted_sums(levels[k], shares), _weighted_sums(levels[partner], deep_shares)], dim=1)
            parts.append(joint @ conv.weight.T.to(joint) + counts[:, None] * conv.bias)
        return ClassSums(torch.cat(parts, dim=1), counts)

    def _linears(self) -> list[nn.Linear]:
        return [conv for conv in self.convs if isinstance(conv, nn.Linear)]


class Fusions(nn.Module):
    """The context fusion of both streams of a segmentation network.

    Args:
        encoder: channels of the encoder's levels, shallow first.
        decoder: channels of the decoder's levels, shallow first.
        width: embedding channels a level (authors: 256).
        pairing: see `ContextFusion`.
        align: ``authors``: the encoder's embedding lives at its finest level, the decoder's at the level above its
            deepest (H/4 in a five-level U-Net); ``finest``: both at the finest.
        levels: which levels take part, 1 is the finest; none given: all.
    """

    def __init__(
        self,
        encoder: Sequence[int],
        decoder: Sequence[int],
        width: int = 256,
        pairing: str = "deepest",
        align: str = "authors",
        levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if wrong := [level for level in levels if not 1 <= level <= len(encoder)]:
            raise UserError(f"context fusion of levels {wrong}: this network has levels 1 to {len(encoder)}")
        self.levels = tuple(level - 1 for level in sorted(levels)) or tuple(range(len(encoder)))
        known("align", align, ALIGNMENTS)
        grid = -2 if align == "authors" else 0
        self.encoder = ContextFusion([encoder[k] for k in self.levels], width, 0, pairing)
        self.decoder = ContextFusion([decoder[k] for k in self.levels], width, grid, pairing)


def nearest(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, *size) by nearest: output i reads input floor(i * in / out)."""
    return image if image.shape[2:] == torch.Size(size) else F.interpolate(image, size=tuple(size), mode="nearest")


def nearest_adjoint(image: Tensor, size: Sequence[int]) -> Tensor:
    """The transpose of `nearest` from ``size`` to the image's size: every pixel adds to the pixel that it reads."""
    for axis, length in enumerate(size, start=2):
        reads = _reads(length, image.shape[axis], image)
        shape = [*image.shape[:axis], length, *image.shape[axis + 1 :]]
        image = image.new_zeros(shape).index_add_(axis, reads, image) if image.shape[axis] != length else image
    return image


def gather(image: Tensor, positions: Tensor) -> Tensor:
    """Pixels of (B, C, *size) at distinct flat positions in (B, *size): (N, C) in float32, or float64 if it was."""
    values: Tensor = _Gather.apply(image, positions)  # type: ignore[no-untyped-call]
    return values if values.dtype == torch.float64 else values.float()


class _Gather(torch.autograd.Function):
    """Advanced indexing whose backward writes instead of accumulating, because no position occurs twice."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, positions: Tensor) -> Tensor:
        pixels = image[0, 0].numel()
        ctx.save_for_backward(positions)
        ctx.shape, ctx.pixels = image.shape, pixels
        return image.flatten(2).transpose(1, 2)[positions // pixels, positions % pixels]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (positions,) = ctx.saved_tensors
        image = gradients[0].new_zeros(ctx.shape)
        image.flatten(2).transpose(1, 2)[positions // ctx.pixels, positions % ctx.pixels] = gradients[0]
        return image, None


def _reads(length: int, wanted: int, like: Tensor) -> Tensor:
    """Which of ``length`` pixels each of ``wanted`` reads: asked of torch itself, so that rounding agrees."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    line = torch.arange(length, dtype=dtype, device=like.device)
    return F.interpolate(line[None, None], size=wanted, mode="nearest")[0, 0].long()


def _cells(positions: Tensor, size: Sequence[int], shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The distinct cells of a (B, C, *shape[2:]) map that positions in (B, *size) read, and which of them each reads.

    Args:
        positions: flat, distinct, (N,).
        size: of the map that they are positions in.
        shape: of the map that is read.

    Returns:
        flat cells, ascending; for each position the index of its cell among them.
    """
    if torch.Size(size) == shape[2:]:
        return positions, torch.arange(len(positions), device=positions.device)
    cell = torch.zeros_like(positions)
    rest, scale = positions, 1
    for length, wanted in zip(reversed(shape[2:]), reversed(size), strict=True):
        cell = cell + scale * _reads(length, wanted, positions)[rest % wanted]
        rest, scale = rest // wanted, scale * length
    cell = cell + scale * rest
    touched = torch.zeros(shape[0] * scale, dtype=torch.bool, device=positions.device)
    touched[cell] = True
    return touched.nonzero().squeeze(1), (touched.cumsum(0) - 1)[cell]


def _weighted_sums(feature: Tensor, weights: Tensor) -> Tensor:
    """Sums over all pixels of feature (B, C, *) under weights (B, K, *): (K, C), in float32 or better."""
    dtype = torch.promote_types(torch.float32, feature.dtype)
    return (weights.flatten(2).to(dtype) @ feature.flatten(2).to(dtype).transpose(1, 2)).sum(0)
