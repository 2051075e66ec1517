"""Fast convolutions: the numbers of the convolution itself, where they are taken, and what they leave."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import fast_convolutions
from models.fast_convolutions import AxisShape, BilinearAlgorithm, Groups, tap_by_tap, tiles, winograd
from models.taps import LiveConvolution

CONVOLUTION = nn.Conv2d(3, 5, 3, padding=1, bias=False).double()


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def assert_same(way: BilinearAlgorithm, whole: nn.Conv2d, images: Tensor) -> None:
    images = images.requires_grad_()
    weight = way.arranged(whole.weight.detach()).requires_grad_()
    theirs, mine = whole(images), way(images, weight)
    torch.testing.assert_close(mine, theirs)
    direction = random(*theirs.shape)
    their_images, their_weight = torch.autograd.grad(theirs, (images, whole.weight), direction)
    my_images, my_weight = torch.autograd.grad(mine, (images, weight), direction)
    torch.testing.assert_close(my_images, their_images)
    for found in (mine, my_images):
        assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(way.as_kernel(my_weight), their_weight)
    assert torch.equal(way.as_kernel(way.arranged(whole.weight)), whole.weight)


@pytest.mark.parametrize(("height", "width"), [*zip(range(3, 14), range(3, 14), strict=True), (3, 8), (9, 4)])
def test_winograd_is_the_convolution(height: int, width: int) -> None:
    way = winograd(AxisShape(height, height, 3, 1, 1), AxisShape(width, width, 3, 1, 1), CONVOLUTION.weight.detach())
    assert_same(way, CONVOLUTION, random(4, 3, height, width))


@pytest.mark.parametrize(
    ("pixels", "count", "each"), [(3, 1, 3), (4, 1, 4), (6, 2, 3), (7, 2, 4), (9, 3, 3), (14, 4, 4)]
)
def test_winograd_takes_as_few_tiles_as_can_be(pixels: int, count: int, each: int) -> None:
    axis = AxisShape(pixels, pixels, 3, 1, 1)
    found = tiles(axis)
    assert found is not None
    assert (found.count, found.pixels) == (count, each)
    assert len(winograd(axis, axis, torch.zeros(1)).read) == (count * (each + 2)) ** 2


@pytest.mark.parametrize(
    "axis", [AxisShape(2, 2, 3, 1, 1), AxisShape(4, 2, 3, 2, 1), AxisShape(4, 2, 3, 1, 0), AxisShape(4, 4, 5, 1, 2)]
)
def test_winograd_is_of_padded_kernels_of_three_taps_alone(axis: AxisShape) -> None:
    assert tiles(axis) is None


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (5, 1, 2), (2, 1, 1), (3, 1, 0), (1, 2, 0)]
)
def test_tap_by_tap_is_the_convolution(kernel: int, stride: int, padding: int) -> None:
    whole = nn.Conv2d(3, 5, kernel, stride, padding, bias=False).double()
    for height, width in itertools.product((3, 4), repeat=2):
        images = random(4, 3, height, width)
        rows, columns = whole(images).shape[2:]
        way = tap_by_tap(
            AxisShape(height, rows, kernel, stride, padding),
            AxisShape(width, columns, kernel, stride, padding),
            whole.weight.detach(),
        )
        assert_same(way, whole, images)


def test_tap_by_tap_multiplies_no_padding() -> None:
    """At 2×2 pixels each of four outputs meets four pixels."""
    axis = AxisShape(2, 2, 3, 1, 1)
    way = tap_by_tap(axis, axis, torch.zeros(1))
    assert way.groups == ((1, 4), (4, 2), (4, 1))
    assert way.order[0] == 4  # the tap in the middle
    assert way.read.sum() == way.written.sum() == len(way.read) == 16


def error_of(points: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> float:
    """What float32 rounds, of the outputs' size, with 128 channels: root mean square."""
    monkeypatch.setitem(fast_convolutions.POINTS, 4, points)
    axis = AxisShape(4, 4, 3, 1, 1)
    weight, images = random(9, 16, 128), random(32, 128, 4, 4)
    exactly = winograd(axis, axis, weight)(images, weight)
    rounded = winograd(axis, axis, weight.float())(images.float(), weight.float())
    return float((rounded - exactly).square().mean().sqrt() / exactly.square().mean().sqrt())


def test_winograds_points_leave_half_the_rounding_of_the_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = error_of(fast_convolutions.POINTS[4], monkeypatch)
    assert 3e-7 < ours < 2e-6
    assert error_of(("0", "1", "-1", "2", "-2"), monkeypatch) > 1.7 * ours


MAKE = pytest.mark.parametrize("make", [tap_by_tap, winograd])
Make = Callable[[AxisShape, AxisShape, Tensor], BilinearAlgorithm]
PADDED = AxisShape(4, 4, 3, 1, 1)


@MAKE
def test_many_images_are_evaluated_some_at_a_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    way = make(PADDED, PADDED, CONVOLUTION.weight.detach())
    weight, images = way.arranged(CONVOLUTION.weight.detach()), random(11, 3, 4, 4)
    at_once: list[int] = []
    apply = fast_convolutions._Products.apply

    def noting(some: Tensor, *others: Any) -> Any:
        at_once.append(len(some))
        return apply(some, *others)

    monkeypatch.setattr(fast_convolutions._Products, "apply", noting)
    monkeypatch.setattr(fast_convolutions, "EVALUATED", 4)
    with torch.no_grad():
        torch.testing.assert_close(way(images, weight), CONVOLUTION(images))
    assert at_once == [4, 4, 3]


@MAKE
def test_what_comes_out_may_be_changed_in_place(make: Make) -> None:
    way = make(PADDED, PADDED, CONVOLUTION.weight.detach())
    weight, images = way.arranged(CONVOLUTION.weight.detach()).requires_grad_(), random(3, 3, 4, 4)
    mine, theirs = way(images, weight).relu_(), CONVOLUTION(images).relu_()
    torch.testing.assert_close(mine, theirs)
    (my_weight,) = torch.autograd.grad(mine.square().sum(), weight)
    (their_weight,) = torch.autograd.grad(theirs.square().sum(), CONVOLUTION.weight)
    torch.testing.assert_close(way.as_kernel(my_weight), their_weight)


@MAKE
def test_no_image_and_one_image(make: Make) -> None:
    way = make(PADDED, PADDED, CONVOLUTION.weight.detach())
    weight = way.arranged(CONVOLUTION.weight.detach())
    assert way(random(0, 3, 4, 4), weight).shape == (0, 5, 4, 4)
    torch.testing.assert_close(way(random(1, 3, 4, 4), weight), CONVOLUTION(random(1, 3, 4, 4)))


def test_under_autocast_it_multiplies_in_bf16_and_gives_gradients_in_float32() -> None:
    """Each tap's product is rounded, and not their sum alone: that may leave half as much again, and not more."""
    axis = AxisShape(2, 2, 3, 1, 1)
    whole = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    way = tap_by_tap(axis, axis, whole.weight.detach())
    weight, images = way.arranged(whole.weight.detach()).requires_grad_(), random(8, 64, 2, 2, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        made, plainly = way(images, weight), whole(images)
    assert made.dtype == torch.bfloat16
    made.float().square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    exactly = whole(images)
    mine, theirs = ((one.detach() - exactly.detach()).norm() / exactly.detach().norm() for one in (made, plainly))
    assert 1e-3 < float(mine) < 1.5 * float(theirs)
    exactly.square().sum().backward()
    assert whole.weight.grad is not None
    assert float((way.as_kernel(weight.grad) - whole.weight.grad).norm() / whole.weight.grad.norm()) < 0.02


def test_a_bias_leaves_bf16_as_it_is() -> None:
    whole = nn.Conv2d(256, 256, 3, padding=1)
    live = LiveConvolution(whole, 2, 2, product_pixels=4, batch_size=16, may_round=False)
    assert live.fast is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert live(random(2, 256, 2, 2, dtype=torch.float32)).dtype == torch.bfloat16


def test_the_gradient_of_images_is_left_out_where_none_is_wanted() -> None:
    axis = AxisShape(4, 4, 3, 1, 1)
    way = winograd(axis, axis, CONVOLUTION.weight.detach())
    weight = way.arranged(CONVOLUTION.weight.detach()).requires_grad_()
    images = random(2, 3, 4, 4)
    way(images, weight).sum().backward()
    assert images.grad is None
    CONVOLUTION(images).sum().backward()
    assert weight.grad is not None
    assert CONVOLUTION.weight.grad is not None
    torch.testing.assert_close(way.as_kernel(weight.grad), CONVOLUTION.weight.grad)


# --- where they are taken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "pixels", "batch_size", "may_round", "groups"),
    [
        (256, 2, 16, False, ((1, 4), (4, 2), (4, 1))),
        (128, 2, 16, True, None),  # too little is spared
        (64, 2, 32, True, None),
        (64, 2, 128, True, ((1, 4), (4, 2), (4, 1))),
        (512, 4, 1, True, None),  # the kernel's sums are as dear as the products
        (512, 4, 4, True, None),
        (512, 4, 8, True, ((36, 1),)),
        (128, 4, 16, True, ((36, 1),)),
        (128, 4, 16, False, None),  # in bf16
        (128, 4, 0, True, None),  # on a GPU
        (128, 8, 16, True, ((36, 4),)),
        (64, 7, 1024, True, None),  # the sums are as dear as the products
        (256, 1, 1024, True, None),
    ],
)
def test_a_convolution_takes_fewer_products_where_that_spares_enough(
    channels: int, pixels: int, batch_size: int, may_round: bool, groups: Groups | None
) -> None:
    whole = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    live = LiveConvolution(whole, pixels, pixels, product_pixels=4, batch_size=batch_size, may_round=may_round)
    assert (None if live.fast is None else live.fast.groups) == groups


@pytest.mark.parametrize("fields", [{"groups": 2}, {"dilation": 2, "padding": 2}, {"stride": 2}])
def test_other_convolutions_are_left_as_they_are(fields: dict[str, Any]) -> None:
    whole = nn.Conv2d(256, 256, 3, **{"padding": 1, **fields})
    assert LiveConvolution(whole, 8, 8, product_pixels=4, batch_size=1024, may_round=True).fast is None
