"""Convolutions in fewer multiplications, between sums of pixels and sums of taps: bilinear algorithms.

Two kinds.  Tap by tap: a matrix product of each tap and the pixels that it meets alone (kn2row, Vasudevan et al. 2017,
arXiv:1704.04428, without the products with padding), at 2×2 pixels 16 products for 36.  And Winograd's minimal
filtering (Lavin & Gray 2015, arXiv:1509.09308), at 4×4 pixels 36 for 144.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import one_hot

Matrix = list[list[Fraction]]
Pair = tuple[int, int]
Groups = tuple[Pair, ...]
"""How many kernels follow each other that are multiplied by so many sums of pixels each."""

POINTS = {3: ("0", "1", "-1", "1/2"), 4: ("0", "3/4", "-3/4", "3/2", "-3/2")}
"""Where the polynomials of F(3, 3) and F(4, 3) are evaluated, besides infinity.

Those of F(4, 3) leave half as much rounding as the usual 0, ±1, ±2: in float32, with 128 channels of random numbers,
1.4e-6 of the outputs' size, where a plain sum leaves 0.4e-6.
"""

SPARED_FROM = 9_000_000
"""From so many multiplications spared in one pass forward on, an algorithm is worth what it costs beside them.

Measured forward and backward on a Xeon, one thread, 8 to 128 images, 8 to 256 channels, maps of 2×2 to 4×4 pixels in
float32 and bf16 and to 14×14 in float32: with fewer spared, 0.4 to 1.15 times as fast, else 0.98 to 2.1 times.
"""
SPARED_SHARE = 0.25
"""More than this share of them is to be spared.  With less it was 0.6 to 1.2 times as fast there."""
EVALUATED = 128
"""So many images at once where no gradients are wanted: sums and products take several times the memory of these."""


@dataclass(frozen=True)
class AxisShape:
    """A convolution along one axis, zeros outside."""

    pixels: int
    outputs: int
    taps: int
    stride: int
    padding: int


class BilinearAlgorithm(nn.Module):
    """A two-dimensional convolution, C to O channels, as E products: images N×C×H×W, weight T×O×C -> N×O×H'×W'.

    Each product is of a sum of pixels (`read`, E × H·W; Lavin & Gray's Bᵀ for both axes) and a sum of taps (`mixed`,
    M × T, their G; None where it is one tap); each output is a sum of products (`written`, E × H'·W', their A).  The E
    products follow each other by their M sums of taps.

    In bf16 each product is rounded before they are added up, where a convolution rounds their sum.
    """

    read: Tensor
    written: Tensor
    mixed: Tensor | None

    def __init__(self, name: str, taps: Pair, outputs: Pair, order: Sequence[int], groups: Groups) -> None:
        """`order`: the weight's taps, by their number row by row."""
        super().__init__()
        self.name, self.taps, self.outputs, self.order, self.groups = name, taps, outputs, list(order), groups

    def keep(self, like: Tensor, read: Tensor, written: Tensor, mixed: Tensor | None) -> None:
        """The matrices, of this tensor's dtype and device."""
        for name, matrix in (("read", read), ("written", written), ("mixed", mixed)):
            self.register_buffer(name, None if matrix is None else matrix.to(like), persistent=False)

    def matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.read.to(dtype), self.written.to(dtype), None if self.mixed is None else self.mixed.to(dtype)

    def by_kernel(self, kernels: Tensor, left: Tensor, right: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each group the kernels, K×O×C, and what meets them of two that are E×N×channels, as K×rows×channels."""
        parts = []
        first = first_kernel = 0
        for count, each in self.groups:
            here = slice(first, first := first + count * each)
            kernel = kernels[first_kernel : (first_kernel := first_kernel + count)]
            parts.append(
                (kernel, left[here].view(count, -1, left.shape[2]), right[here].view(count, -1, right.shape[2]))
            )
        return parts

    def arranged(self, kernel: Tensor) -> Tensor:
        """A kernel O×C×rows×columns as the weight T×O×C."""
        return kernel.permute(2, 3, 0, 1).flatten(0, 1)[self.order]

    def as_kernel(self, values: Tensor) -> Tensor:
        """The way back."""
        by_number = torch.empty_like(values)
        by_number[self.order] = values
        kernel: Tensor = by_number.unflatten(0, self.taps).permute(2, 3, 0, 1)
        return kernel

    def forward(self, images: Tensor, weight: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            images, weight = images.to(dtype), weight.to(dtype)
        if torch.is_grad_enabled():
            made: Tensor = _Products.apply(images, weight, self)
            return made
        return torch.cat([_Products.apply(some, weight, self) for some in images.split(EVALUATED)])


class _Products(torch.autograd.Function):
    """Images N×C×H×W and a weight T×O×C -> N×O×H'×W', both in channels_last.

    One function with all its views inside: each one that autograd has to know of takes time forward and backward.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, way: BilinearAlgorithm) -> Tensor:
        read, written, mixed = way.matrices(weight.dtype)
        kernels = weight if mixed is None else torch.mm(mixed, weight.flatten(1)).view(-1, *weight.shape[1:])
        sums = torch.matmul(read, images.permute(0, 2, 3, 1).flatten(1, 2)).transpose(0, 1).contiguous()
        products = sums.new_empty(len(sums), len(images), kernels.shape[1])
        for kernel, left, right in way.by_kernel(kernels, sums, products):
            torch.bmm(left, kernel.transpose(1, 2), out=right)
        ctx.save_for_backward(sums, kernels, read, written, mixed)
        ctx.way, ctx.shape = way, images.shape
        made = torch.empty(  # no view: it may be changed in place
            (len(images), kernels.shape[1], *way.outputs),
            dtype=images.dtype,
            device=images.device,
            memory_format=torch.channels_last,
        )
        torch.matmul(written.t(), products.transpose(0, 1), out=made.permute(0, 2, 3, 1).flatten(1, 2))
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        sums, kernels, read, written, mixed = ctx.saved_tensors
        of_products = torch.matmul(written, gradient.permute(0, 2, 3, 1).flatten(1, 2)).transpose(0, 1).contiguous()
        of_images = of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = torch.empty_like(kernels)
            for kernel, left, right in ctx.way.by_kernel(of_weight, of_products, sums):
                torch.bmm(left.transpose(1, 2), right, out=kernel)
            if mixed is not None:
                of_weight = torch.mm(mixed.t(), of_weight.flatten(1)).view(-1, *kernels.shape[1:])
        if ctx.needs_input_grad[0]:
            count, channels, height, width = ctx.shape
            of_sums = torch.empty_like(sums)
            for kernel, left, right in ctx.way.by_kernel(kernels, of_products, of_sums):
                torch.bmm(left, kernel, out=right)
            of_pixels = torch.matmul(read.t(), of_sums.transpose(0, 1))
            of_images = of_pixels.view(count, height, width, channels).permute(0, 3, 1, 2)
        return of_images, of_weight, None


def chosen(
    rows: AxisShape, columns: AxisShape, kernel: Tensor, images: int, is_product: bool, may_round: bool
) -> BilinearAlgorithm | None:
    """The one for a kernel O×C×rows×columns and so many images at once, where it spares enough; else None.

    In place of a product over patches, or, where it `may_round`, of a convolution.
    """
    outputs, channels = kernel.shape[:2]
    pixels, made = rows.pixels * columns.pixels, rows.outputs * columns.outputs
    if is_product:
        make, products, mixed = tap_by_tap, sum(len(met) for met in pairs(rows, columns)), 0
    elif may_round and (down := tiles(rows)) is not None and (across := tiles(columns)) is not None:
        make, kernels = winograd, down.products * across.products
        products, mixed = kernels * down.count * across.count, kernels * 9
    else:
        return None
    directly = images * made * rows.taps * columns.taps * outputs * channels
    with_sums = products * (outputs * channels + pixels * channels + made * outputs)
    spared = directly - images * with_sums - mixed * outputs * channels
    if not products or spared < SPARED_FROM or spared <= SPARED_SHARE * directly:
        return None
    return make(rows, columns, kernel)


def pairs(rows: AxisShape, columns: AxisShape) -> list[list[Pair]]:
    """Of each tap, row by row, the pixels that it meets and the outputs that it does so for, by their numbers."""
    return [
        [
            (row * columns.pixels + column, y * columns.outputs + x)
            for y in range(rows.outputs)
            for x in range(columns.outputs)
            if 0 <= (row := y * rows.stride + down - rows.padding) < rows.pixels
            and 0 <= (column := x * columns.stride + right - columns.padding) < columns.pixels
        ]
        for down in range(rows.taps)
        for right in range(columns.taps)
    ]


def tap_by_tap(rows: AxisShape, columns: AxisShape, like: Tensor) -> BilinearAlgorithm:
    """Each tap times the pixels that it meets: as many products as pairs of the two, none with padding."""
    met = pairs(rows, columns)
    order = sorted(range(len(met)), key=lambda tap: -len(met[tap]))
    counts = [len(met[tap]) for tap in order]
    groups = tuple((counts.count(each), each) for each in sorted(set(counts), reverse=True))
    way = BilinearAlgorithm("tap by tap", (rows.taps, columns.taps), (rows.outputs, columns.outputs), order, groups)
    read, written = zip(*(pair for tap in order for pair in met[tap]), strict=True)
    way.keep(
        like,
        one_hot(torch.tensor(read), rows.pixels * columns.pixels),
        one_hot(torch.tensor(written), rows.outputs * columns.outputs),
        None,
    )
    return way


@dataclass(frozen=True)
class Tiles:
    """An axis of a 3×3 kernel in Winograd's F(pixels, 3)."""

    count: int
    pixels: int
    """Made by each tile; those of the last one may be fewer."""

    @property
    def products(self) -> int:
        """Of each tile."""
        return self.pixels + 2


def tiles(axis: AxisShape) -> Tiles | None:
    """As few as can be of at most four pixels; None where Winograd's algorithm does not apply."""
    if axis.pixels < min(POINTS) or (axis.taps, axis.stride, axis.padding) != (3, 1, 1):
        return None
    count = math.ceil(axis.pixels / max(POINTS))
    return Tiles(count, math.ceil(axis.pixels / count))


def winograd(rows: AxisShape, columns: AxisShape, like: Tensor) -> BilinearAlgorithm:
    """A 3×3 kernel by Winograd's F(n, 3), n pixels three or four, along both axes, which `tiles` are not None of.

    Nested as Lavin & Gray nest them.  Not for float16 and bfloat16: too much is rounded.
    """
    down, across = tiles(rows), tiles(columns)
    assert down is not None
    assert across is not None
    each = down.count * across.count
    groups = ((down.products * across.products, each),)
    way = BilinearAlgorithm("Winograd's", (3, 3), (rows.outputs, columns.outputs), range(9), groups)
    one, other = _winograd(rows, down), _winograd(columns, across)
    # products q and r along the two axes, of tiles s and t, from or to pixels i and j
    read, written = (torch.einsum("qsi,rtj->qrstij", one[i], other[i]).flatten(0, 3).flatten(1) for i in (0, 1))
    way.keep(like, read, written, torch.kron(one[2], other[2]))
    return way


def _winograd(axis: AxisShape, tiles: Tiles) -> tuple[Tensor, Tensor, Tensor]:
    """What is read and written, products × tiles × pixels, and mixed, products × taps, in float64.

    The transposed Toom-Cook algorithm at POINTS and at infinity.
    """
    points = [Fraction(point) for point in POINTS[tiles.pixels]]
    read, written, mixed = [], [], []
    for point in points:
        others = [other for other in points if other != point]
        factor = math.prod((1 / (point - other) for other in others), start=Fraction(1))
        read.append([*_with_roots(others), Fraction(0)])
        written.append([point**power for power in range(tiles.pixels)])
        mixed.append([point**power * factor for power in range(3)])
    read.append(_with_roots(points))
    written.append([Fraction(power == tiles.pixels - 1) for power in range(tiles.pixels)])
    mixed.append([Fraction(power == 2) for power in range(3)])
    return _placed(read, axis, tiles, -1), _placed(written, axis, tiles, 0), _of_floats(mixed)


def _placed(of_tile: Matrix, axis: AxisShape, tiles: Tiles, first: int) -> Tensor:
    """A tile's matrix for all of them, each a tile further on; `first` is the first tile's first pixel."""
    whole = torch.zeros(len(of_tile), tiles.count, axis.pixels, dtype=torch.float64)
    values = _of_floats(of_tile)
    for tile in range(tiles.count):
        start = first + tile * tiles.pixels
        inside = slice(max(start, 0), min(start + values.shape[1], axis.pixels))
        whole[:, tile, inside] = values[:, inside.start - start : inside.stop - start]
    return whole


def _of_floats(matrix: Matrix) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in matrix], dtype=torch.float64)


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients, lowest first, of the polynomial with these roots and leading coefficient 1."""
    coefficients = [Fraction(1)]
    for root in roots:
        times_x, times_root = [Fraction(0), *coefficients], [*(root * value for value in coefficients), Fraction(0)]
        coefficients = [one - other for one, other in zip(times_x, times_root, strict=True)]
    return coefficients
