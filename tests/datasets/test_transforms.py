from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datasets import Dataset, DatasetConfig, load_splits, transforms
from datasets.splits import split
from datasets.transforms import AUGMENTATIONS, Augmentation, Transform, resize, rotate_shift

CPU = torch.device("cpu")


def pixels(n: int = 6, channels: int = 1, side: int = 20, seed: int = 0) -> Tensor:
    """Images of noise, from 0 to 1."""
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes rotate_shift draw one number from 0 to 1 wherever it draws; 1 is the end of every range, 0.5 its middle."""

    def fix(value: float) -> None:
        monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, value))

    return fix


# --- resize -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 32, 64, 224])
@pytest.mark.parametrize("stored", [(8, 8), (28, 28), (300, 300), (40, 25)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_as_pillow(size: int, stored: tuple[int, int], channels: int) -> None:
    """Pillow's bilinear filter is antialiased and another implementation."""
    images = torch.rand(2, channels, *stored, generator=seeded())
    resized = resize(images, size)
    assert resized.shape == (2, channels, size, size)
    assert resized.dtype == torch.float32
    for image, result in zip(images.flatten(0, 1), resized.flatten(0, 1), strict=True):
        expected = Image.fromarray(image.numpy()).resize((size, size), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(result.numpy(), np.asarray(expected), atol=2e-5)


def test_resize_antialiased() -> None:
    """Stripes of period 4 at a quarter of the size: plain bilinear reads only the two black columns of each."""
    stripes = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(16).expand(1, 1, 64, 64)
    inner = resize(stripes, 16)[..., 2:-2, 2:-2]
    assert inner.min() > 0.3
    assert inner.max() < 0.7


def test_resize_own_size() -> None:
    images = pixels(side=28)
    assert torch.equal(resize(images, 28), images)


@pytest.mark.parametrize("size", [28, 64, 224])
def test_resize_constant(size: int) -> None:
    images = torch.full((1, 3, 50, 50), 0.25)
    torch.testing.assert_close(resize(images, size), torch.full((1, 3, size, size), 0.25))


# --- Transform ----------------------------------------------------------------------------------------------------


def coloured(n: int = 60, side: int = 12, image_size: int = 12) -> Dataset:
    generator = np.random.default_rng(0)
    images = np.stack([generator.integers(50 * c, 50 * c + 40 + 20 * c, (n, side, side)) for c in range(3)], axis=1)
    return Dataset(torch.from_numpy(images.astype(np.uint8)), torch.arange(n) % 2, ("a", "b"), image_size)


def test_transform_normalises_training_part() -> None:
    splits = split(coloured(), DatasetConfig(name="coloured"))
    seen = Transform.of(splits, CPU)(splits.train.images)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_transform_other_parts_by_training_numbers() -> None:
    splits = split(coloured(), DatasetConfig(name="coloured"))
    seen = Transform.of(splits, CPU)(splits.test.images)
    expected = splits.test.images.numpy() / 255.0
    expected = (expected - np.reshape(splits.mean, (3, 1, 1))) / np.reshape(splits.std, (3, 1, 1))
    np.testing.assert_allclose(seen.numpy(), expected, atol=1e-4)
    assert seen.mean((0, 2, 3)).abs().max() > 1e-4  # not by its own


@pytest.mark.parametrize("size", [28, 32, 64, 224])
def test_transform_digits(size: int) -> None:
    splits = load_splits(DatasetConfig(name="digits", image_size=size, limit=100))
    transform = Transform.of(splits, CPU)
    seen = transform(splits.train.images)
    assert seen.shape == (70, 1, size, size)
    assert seen.dtype == torch.float32
    expected = (resize(splits.train.images / 255, size) - splits.mean[0]) / splits.std[0]
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)
    assert abs(float(seen.mean())) < 0.15  # resizing moves it a little
    assert 0.6 < float(seen.std()) < 1.05


def test_transform_constant_channel() -> None:
    dataset = coloured()
    dataset.images[:, 1] = 77
    splits = split(dataset, DatasetConfig(name="coloured"))
    seen = Transform.of(splits, CPU)(splits.train.images)
    assert seen.isfinite().all()
    assert seen[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [12, 20])
def test_transform_keeps_input(name: str, size: int) -> None:
    splits = split(coloured(image_size=size), DatasetConfig(name="coloured"))
    before = splits.train.images.clone()
    Transform.of(splits, CPU)(splits.train.images, AUGMENTATIONS[name], seeded())
    assert splits.train.images.dtype == torch.uint8
    assert torch.equal(splits.train.images, before)


def test_transform_augments_resized_pixels() -> None:
    """An augmentation gets what its type promises, after the resizing, and its result is then normalised."""
    splits = split(coloured(image_size=20), DatasetConfig(name="coloured"))
    generator = seeded()
    given: list[tuple[Tensor, torch.Generator]] = []

    def blacken(images: Tensor, generator: torch.Generator) -> Tensor:
        given.append((images, generator))
        return torch.zeros_like(images)

    seen = Transform.of(splits, CPU)(splits.train.images, blacken, generator)
    ((images, passed),) = given
    assert passed is generator
    torch.testing.assert_close(images, resize(splits.train.images / 255, 20))
    assert 0 <= images.min() < images.max() <= 1
    black = -torch.tensor(splits.mean) / torch.tensor(splits.std)
    torch.testing.assert_close(seen, black.reshape(1, 3, 1, 1).expand(seen.shape))


def test_transform_augmentation_needs_generator() -> None:
    splits = split(coloured(), DatasetConfig(name="coloured"))
    with pytest.raises(AssertionError, match="generator"):
        Transform.of(splits, CPU)(splits.train.images, rotate_shift)


# --- the contract of every augmentation ---------------------------------------------------------------------------

augmentations = pytest.mark.parametrize(
    "augment", [pytest.param(function, id=name) for name, function in AUGMENTATIONS.items() if function is not None]
)


def test_augmentations_none() -> None:
    assert AUGMENTATIONS["none"] is None
    assert AUGMENTATIONS["rotate_shift"] is rotate_shift


@augmentations
@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (5, 3, 28, 28), (4, 1, 64, 64)], ids=str)
def test_augmentation_keeps_shape(augment: Augmentation, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=seeded())
    seen = augment(images, seeded())
    assert (seen.shape, seen.dtype, seen.device) == (images.shape, images.dtype, images.device)
    assert 0 <= seen.min() < seen.max() <= 1 + 1e-6
    assert not torch.equal(seen, images)


@augmentations
def test_augmentation_by_generator_alone(augment: Augmentation) -> None:
    images = pixels()
    torch.manual_seed(1)
    first = augment(images, seeded(3))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(augment(images, seeded(3)), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(augment(images, seeded(4)), first)


@augmentations
def test_augmentation_draws_anew(augment: Augmentation) -> None:
    """Each call and each image its own."""
    generator = seeded()
    images = pixels(1).expand(4, -1, -1, -1).contiguous()
    seen = torch.cat([augment(images, generator), augment(images, generator)])
    assert len({image.numpy().tobytes() for image in seen}) == 8


@augmentations
def test_augmentation_keeps_input(augment: Augmentation) -> None:
    images = pixels()
    before = images.clone()
    augment(images, seeded())
    assert torch.equal(images, before)


# --- rotate_shift -------------------------------------------------------------------------------------------------


def test_rotate_shift_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "ROTATE_DEGREES", 0)
    monkeypatch.setattr(transforms, "SHIFT", 0)
    images = pixels(channels=3)
    torch.testing.assert_close(rotate_shift(images, seeded()), images, atol=1e-5, rtol=0)


def test_rotate_shift_middle_of_range(draw: Callable[[float], None]) -> None:
    draw(0.5)
    images = pixels()
    torch.testing.assert_close(rotate_shift(images, seeded()), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("end", [0.0, 1.0])
@pytest.mark.parametrize(("side", "share", "moved"), [(20, 0.1, 2), (30, 0.1, 3), (32, 0.25, 8)])
def test_rotate_shift_known_shift(
    end: float,
    side: int,
    share: float,
    moved: int,
    draw: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole shift along both axes: the same pixels `moved` places on, black behind them."""
    monkeypatch.setattr(transforms, "ROTATE_DEGREES", 0)
    monkeypatch.setattr(transforms, "SHIFT", share)
    draw(end)
    images = pixels(3, channels=2, side=side) / 2 + 0.5
    low = torch.zeros_like(images)  # towards the first row and column
    low[..., :-moved, :-moved] = images[..., moved:, moved:]
    high = torch.zeros_like(images)
    high[..., moved:, moved:] = images[..., :-moved, :-moved]
    seen = rotate_shift(images, seeded())
    torch.testing.assert_close(seen, high if end == 0.0 else low, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("end", "turns"), [(0.0, -1), (1.0, 1)])
def test_rotate_shift_known_angle(
    end: float, turns: int, draw: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter turn about the centre loses nothing of a square, one way at one end of the range, back at the other."""
    monkeypatch.setattr(transforms, "ROTATE_DEGREES", 90)
    monkeypatch.setattr(transforms, "SHIFT", 0)
    draw(end)
    images = pixels(3, channels=2)
    seen = rotate_shift(images, seeded())
    torch.testing.assert_close(seen, torch.rot90(images, turns, (2, 3)), atol=1e-4, rtol=0)


def centroids(images: Tensor) -> Tensor:
    """N×2, rows and columns from the centre, in pixels; bilinear sampling moves a lone dot's exactly."""
    side = images.shape[-1]
    place = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    mass = images[:, 0].sum((1, 2))
    return torch.stack([(images[:, 0].sum(2) @ place) / mass, (images[:, 0].sum(1) @ place) / mass], 1)


def test_rotate_shift_even_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "ROTATE_DEGREES", 0)
    images = torch.zeros(2000, 1, 41, 41)
    images[:, :, 20, 20] = 1
    moved = centroids(rotate_shift(images, seeded())) / 41
    assert moved.abs().max() <= transforms.SHIFT + 1e-4
    assert moved.max(0).values.min() > 0.98 * transforms.SHIFT  # both ends of both axes are reached
    assert moved.min(0).values.max() < -0.98 * transforms.SHIFT
    assert moved.mean(0).abs().max() < 0.05 * transforms.SHIFT
    torch.testing.assert_close(moved.std(0), torch.full((2,), transforms.SHIFT / 3**0.5), rtol=0.05, atol=0)
    assert torch.corrcoef(moved.T)[0, 1].abs() < 0.1


def test_rotate_shift_even_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dot 15 pixels right of the centre stays at that distance; its angle is the image's."""
    monkeypatch.setattr(transforms, "SHIFT", 0)
    images = torch.zeros(2000, 1, 41, 41)
    images[:, :, 20, 35] = 1
    rows, columns = centroids(rotate_shift(images, seeded())).T
    torch.testing.assert_close(torch.hypot(rows, columns), torch.full((2000,), 15.0), atol=0.35, rtol=0)
    degrees = torch.rad2deg(torch.atan2(rows, columns))
    bound = transforms.ROTATE_DEGREES
    assert degrees.abs().max() < 1.06 * bound
    assert degrees.max() > 0.94 * bound
    assert degrees.min() < -0.94 * bound
    assert degrees.mean().abs() < 0.05 * bound
    assert float(degrees.std()) == pytest.approx(bound / 3**0.5, rel=0.06)


def test_rotate_shift_angle_apart_from_shifts() -> None:
    """The same draws seen twice: the angles with the shifts off, the shifts with the angles off."""
    dots = torch.zeros(2000, 1, 41, 41)
    dots[:, :, 20, 35] = 1
    seen = []
    for constant in ("SHIFT", "ROTATE_DEGREES"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transforms, constant, 0)
            seen.append(centroids(rotate_shift(dots, seeded())))
    turned, moved = seen
    together = torch.corrcoef(torch.stack([turned[:, 0], moved[:, 0], moved[:, 1]]))
    assert together[0, 1:].abs().max() < 0.1


def test_rotate_shift_bounds() -> None:
    """The figures that the name stands for."""
    assert (transforms.ROTATE_DEGREES, transforms.SHIFT) == (10, 0.1)


def test_rotate_shift_black_outside() -> None:
    """White images: the centre stays white, black comes in at the edges, nothing leaves 0 to 1."""
    seen = rotate_shift(torch.ones(200, 1, 40, 40), seeded())
    assert seen.min() == 0
    assert seen.max() <= 1 + 1e-6
    torch.testing.assert_close(seen[..., 12:28, 12:28], torch.ones(200, 1, 16, 16))
    edges = torch.stack([seen[..., 0, :], seen[..., -1, :], seen[..., :, 0], seen[..., :, -1]])
    assert (edges.amin((0, 2, 3)) < 0.999).all()


def test_rotate_shift_channels_together() -> None:
    grey = pixels(5)
    seen = rotate_shift(grey.expand(-1, 3, -1, -1).contiguous(), seeded())
    assert torch.equal(seen[:, 0], seen[:, 1])
    assert torch.equal(seen[:, 0], seen[:, 2])
    assert torch.equal(seen[:, :1], rotate_shift(grey, seeded()))
