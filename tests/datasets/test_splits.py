from __future__ import annotations

import dataclasses
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from datasets import Dataset, DatasetConfig, Split, Splits, load_splits
from datasets.splits import split

Numbered = Callable[..., Dataset]
Numbers = Callable[[Split], list[int]]
Config = Callable[..., DatasetConfig]
Refused = Callable[..., str]


def parts(splits: Splits) -> list[Split]:
    return [splits.train, splits.val, splits.test]


def coloured(n: int = 50, channels: int = 3) -> Dataset:
    """Channels of different brightness and spread."""
    generator = np.random.default_rng(0)
    pixels = np.stack([generator.integers(40 * c, 40 * c + 60 + 20 * c, (n, 5, 5)) for c in range(channels)], axis=1)
    return Dataset(torch.from_numpy(pixels.astype(np.uint8)), torch.arange(n) % 2, ("a", "b"), 5)


# --- which image falls where --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "fractions", "sizes"),
    [
        (1000, (0.7, 0.1, 0.2), [700, 100, 200]),
        (1797, (0.7, 0.1, 0.2), [1258, 180, 359]),
        (10, (0.7, 0.1, 0.2), [7, 1, 2]),
        (1000, (0.05, 0.9, 0.05), [50, 900, 50]),
        (99, (1 / 3, 1 / 3, 1 / 3), [33, 33, 33]),
    ],
)
def test_fractions_disjoint_exhaustive(
    n: int,
    fractions: tuple[float, float, float],
    sizes: list[int],
    numbered: Numbered,
    numbers: Numbers,
    config: Config,
) -> None:
    splits = split(numbered(n), config(split=fractions))
    assert [len(part) for part in parts(splits)] == sizes
    assert sorted(number for part in parts(splits) for number in numbers(part)) == list(range(n))


def test_fractions_shuffled(numbered: Numbered, numbers: Numbers, config: Config) -> None:
    splits = split(numbered(1000), config())
    for part in parts(splits):
        held = numbers(part)
        assert abs(np.mean(held) - 500) < 100  # from the whole range; ordered parts would be 150 off and more
        assert held != sorted(held)


def test_parts_types(numbered: Numbered, config: Config) -> None:
    splits = split(numbered(40), config())
    for part in parts(splits):
        assert (part.images.dtype, part.labels.dtype) == (torch.uint8, torch.int64)
        assert part.images.shape[1:] == (1, 2, 2)
        assert len(part) == len(part.images) == len(part.labels)
        assert part.images.is_contiguous()
        assert part.labels.is_contiguous()
    assert splits.classes == tuple("0123456789")
    assert splits.image_size == 2
    assert splits.channels == 1
    assert split(coloured(), config()).channels == 3


def test_dataset_unchanged(config: Config) -> None:
    dataset = coloured()
    images, labels = dataset.images.clone(), dataset.labels.clone()
    splits = split(dataset, config())
    splits.train.images.zero_()
    splits.train.labels.zero_()
    assert torch.equal(dataset.images, images)
    assert torch.equal(dataset.labels, labels)


RULES = [(0.7, 0.1, 0.2), "official", {"train": 50, "val": 20, "test": 20}]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("limit", [None, 95])
def test_same_seed_same_split(rule: Any, limit: int | None, numbered: Numbered, config: Config) -> None:
    first, again = (split(numbered(100, 80), config(split=rule, split_seed=3, limit=limit)) for _ in range(2))
    for one, two in zip(parts(first), parts(again), strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.labels, two.labels)
    assert first.sha256 == again.sha256


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("limit", [None, 95])
def test_other_seed_other_split(
    rule: Any, limit: int | None, numbered: Numbered, numbers: Numbers, config: Config
) -> None:
    one, two = (split(numbered(100, 80), config(split=rule, split_seed=seed, limit=limit)) for seed in (0, 1))
    assert set(numbers(one.train)) != set(numbers(two.train))
    assert set(numbers(one.val)) != set(numbers(two.val))
    assert one.sha256 != two.sha256


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_split_ignores_global_seed(rule: Any, numbered: Numbered, config: Config) -> None:
    seen = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state()
        seen.append(split(numbered(100, 80), config(split=rule)).sha256)
        assert torch.equal(torch.get_rng_state(), before)
    assert seen[0] == seen[1]


def test_split_pinned(numbered: Numbered, numbers: Numbers, config: Config) -> None:
    """A change here makes results incomparable with those of earlier versions."""
    splits = split(numbered(20, 14), config())
    assert numbers(splits.train) == [4, 5, 13, 19, 7, 14, 3, 6, 9, 17, 11, 2, 16, 18]
    assert numbers(splits.val) == [10, 12]
    assert numbers(splits.test) == [15, 8, 1, 0]
    assert splits.sha256 == "e002e990f0f520fe6a68eb27f73e9a950f8164ae3c5913a43ab2acdba89d1658"
    splits = split(numbered(20, 14), config(split="official", limit=15))
    assert numbers(splits.train) == [3, 7, 6, 2, 11, 9, 10, 1, 12]
    assert numbers(splits.val) == [4]
    assert numbers(splits.test) == [14, 15, 16, 17, 18]
    assert splits.sha256 == "739857e8edb3c882d1c85b2a604862ffb9ef147c980fef6a967bb6dd6c5b96d7"


# --- the official split -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_official_parts(seed: int, numbered: Numbered, numbers: Numbers, config: Config) -> None:
    splits = split(numbered(700, 600), config(split="official", split_seed=seed))
    assert [len(part) for part in parts(splits)] == [540, 60, 100]
    assert sorted(numbers(splits.train) + numbers(splits.val)) == list(range(600))
    assert numbers(splits.test) == list(range(600, 700))
    assert min(numbers(splits.val)) < 300 < max(numbers(splits.val))


def test_official_limit(numbered: Numbered, numbers: Numbers, config: Config) -> None:
    splits = split(numbered(700, 600), config(split="official", limit=350))
    assert [len(part) for part in parts(splits)] == [270, 30, 50]
    known = numbers(splits.train) + numbers(splits.val)
    test = numbers(splits.test)
    assert len(set(known)) == 300
    assert max(known) < 600
    assert len(set(test)) == 50
    assert min(test) >= 600
    assert max(test) >= 650  # drawn from all of them, not the first 50
    assert test == sorted(test)


@pytest.mark.parametrize("limit", [20, 33, 101, 699])
def test_official_limit_total(limit: int, numbered: Numbered, numbers: Numbers, config: Config) -> None:
    splits = split(numbered(700, 600), config(split="official", limit=limit))
    held = [number for part in parts(splits) for number in numbers(part)]
    assert len(held) == len(set(held)) == limit
    assert abs(len(splits.test) - limit / 7) <= 0.5


def test_official_missing(numbered: Numbered, config: Config, refused: Refused) -> None:
    refused(lambda: split(numbered(100), config(split="official")), "dataset.split", "numbered", "no official split")
    refused(lambda: load_splits(DatasetConfig(name="digits", split="official")), "dataset.split", "digits")


# --- numbers of images, limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(20, 10, 30), (1, 1, 1), (80, 10, 10)], ids=str)
def test_sizes_disjoint(sizes: tuple[int, int, int], numbered: Numbered, numbers: Numbers, config: Config) -> None:
    splits = split(numbered(100), config(split=dict(zip(("train", "val", "test"), sizes, strict=True))))
    assert tuple(len(part) for part in parts(splits)) == sizes
    assert len({number for part in parts(splits) for number in numbers(part)}) == sum(sizes)


def test_sizes_too_big(numbered: Numbered, config: Config, refused: Refused) -> None:
    rule = {"train": 1080, "val": 10, "test": 11}
    message = refused(lambda: split(numbered(1100), config(split=rule)), "dataset.split", "1,080 + 10 + 11", "1,100")
    assert "1,101" not in message
    rule = {"train": 30, "val": 10, "test": 11}
    refused(lambda: split(numbered(100), config(split=rule, limit=50)), "dataset.split", "30 + 10 + 11", "50")


def test_sizes_within_limit(numbered: Numbered, numbers: Numbers, config: Config) -> None:
    splits = split(numbered(100), config(split={"train": 30, "val": 10, "test": 10}, limit=50))
    assert len({number for part in parts(splits) for number in numbers(part)}) == 50


def test_limit_fractions(numbered: Numbered, numbers: Numbers, config: Config) -> None:
    splits = split(numbered(1000), config(limit=100))
    assert [len(part) for part in parts(splits)] == [70, 10, 20]
    held = [number for part in parts(splits) for number in numbers(part)]
    assert len(set(held)) == 100
    assert abs(np.mean(held) - 500) < 100  # drawn from all, not the first 100


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_limit_of_all_changes_nothing(rule: Any, numbered: Numbered, config: Config) -> None:
    whole, limited = (split(numbered(100, 80), config(split=rule, limit=limit)) for limit in (None, 100))
    assert whole.sha256 == limited.sha256


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_limit_too_big(rule: Any, numbered: Numbered, config: Config, refused: Refused) -> None:
    refused(
        lambda: split(numbered(1500, 80), config(split=rule, limit=1501)), "dataset.limit", "1,501", "1,500", "numbered"
    )


@pytest.mark.parametrize(
    ("n", "fractions", "empty"),
    [
        (4, (0.7, 0.1, 0.2), "validation"),
        (10, (0.01, 0.49, 0.5), "training"),
        (10, (0.5, 0.49, 0.01), "test"),
    ],
)
def test_too_few_images(
    n: int,
    fractions: tuple[float, float, float],
    empty: str,
    numbered: Numbered,
    config: Config,
    refused: Refused,
) -> None:
    refused(lambda: split(numbered(n), config(split=fractions)), "numbered", f"{n} images", f"the {empty} part")


@pytest.mark.parametrize("rule", [(0.7, 0.1, 0.2), "official"], ids=str)
def test_too_few_images_by_limit(rule: Any, numbered: Numbered, config: Config, refused: Refused) -> None:
    """The 1,000 images would do; what leaves a part empty is the limit, and the message has to say so."""
    message = refused(lambda: split(numbered(1000, 800), config(split=rule, limit=3)), "the validation part")
    assert "limit" in message or "3 images" in message


def test_too_few_images_official(numbered: Numbered, config: Config, refused: Refused) -> None:
    refused(lambda: split(numbered(8, 4), config(split="official")), "numbered", "the validation part")


def test_fractions_rounded_up_twice(numbered: Numbered, config: Config, refused: Refused) -> None:
    """3.5 and 3.5 of 7 images round to 4 and 4: no room for the third part, whose share is below the tolerance."""
    refused(lambda: split(numbered(7), config(split=(0.5, 0.5, 1e-10))), "numbered", "the test part")


# --- mean and standard deviation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_statistics_training_part_alone(channels: int, config: Config) -> None:
    dataset = coloured(channels=channels)
    splits = split(dataset, config())
    pixels = splits.train.images.numpy().astype(np.float64) / 255
    assert splits.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), rel=1e-9)
    assert splits.std == pytest.approx(pixels.std(axis=(0, 2, 3)), rel=1e-9)
    assert len(splits.mean) == len(splits.std) == channels
    every = dataset.images.numpy().astype(np.float64) / 255
    assert splits.mean != pytest.approx(every.mean(axis=(0, 2, 3)), rel=1e-9)
    assert all(isinstance(value, float) for value in splits.mean + splits.std)


def test_statistics_blind_to_other_parts(config: Config) -> None:
    """All pixels outside the training part set to white: the same numbers."""
    dataset = coloured()
    rows = [dataset.images[n].numpy().tobytes() for n in range(50)]
    assert len(set(rows)) == 50
    before = split(dataset, config())
    kept = {image.numpy().tobytes() for image in before.train.images}
    whitened = dataset.images.clone()
    for n, row in enumerate(rows):
        if row not in kept:
            whitened[n] = 255
    after = split(dataclasses.replace(dataset, images=whitened), config())
    assert (after.mean, after.std) == (before.mean, before.std)
    assert after.sha256 != before.sha256


@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_statistics_constant_channel(value: int, config: Config) -> None:
    dataset = coloured()
    dataset.images[:, 1] = value
    splits = split(dataset, config())
    assert splits.mean[1] == pytest.approx(value / 255, abs=1e-12)
    assert splits.std[1] == 1.0
    assert splits.std[0] != 1.0
    assert splits.std[2] != 1.0


# --- the digest ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(20))
def test_sha256_one_pixel(n: int, numbered: Numbered, config: Config) -> None:
    dataset = numbered(20)
    before = split(dataset, config()).sha256
    dataset.images[n, 0, 1, 1] += 1
    assert split(dataset, config()).sha256 != before


@pytest.mark.parametrize("n", range(20))
def test_sha256_one_label(n: int, numbered: Numbered, config: Config) -> None:
    dataset = numbered(20)
    before = split(dataset, config()).sha256
    dataset.labels[n] = (dataset.labels[n] + 1) % 10
    assert split(dataset, config()).sha256 != before


def test_sha256_of_each_split(numbered: Numbered, config: Config) -> None:
    rules: list[dict[str, Any]] = [
        *({"split_seed": seed} for seed in range(5)),
        {"split": "official"},
        {"split": (0.6, 0.2, 0.2)},
        {"split": {"train": 70, "val": 10, "test": 19}},
        {"limit": 50},
    ]
    digests = [split(numbered(100, 80), config(**rule)).sha256 for rule in rules]
    assert len(set(digests)) == len(rules)
    assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in digests)


def test_sha256_of_shape(config: Config) -> None:
    """The same bytes as images of another shape."""
    pixels, labels = torch.arange(20 * 16).to(torch.uint8), torch.arange(20) % 2
    wide, square = (
        split(Dataset(pixels.reshape(20, 1, *shape), labels, ("a", "b"), 4), config()) for shape in ((2, 8), (4, 4))
    )
    assert wide.sha256 != square.sha256


def test_sha256_blind_to_image_size() -> None:
    """The digest is of the stored pixels; the size a model sees is in its config."""
    small, large = (load_splits(DatasetConfig(name="digits", image_size=size)) for size in (28, 64))
    assert small.sha256 == large.sha256
    assert (small.image_size, large.image_size) == (28, 64)


def test_images_strided(config: Config) -> None:
    """A Dataset is N×C×H×W whatever its strides: channels stored last give what channels stored first give."""
    dataset = coloured()
    strided = dataset.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not strided.is_contiguous()
    assert split(dataclasses.replace(dataset, images=strided), config()).sha256 == split(dataset, config()).sha256


# --- pickling -----------------------------------------------------------------------------------------------------


@pytest.fixture
def every_warning() -> Iterator[None]:
    """Torch says once a process that an array is read-only; here it says it each time, and saying it fails."""
    torch.set_warn_always(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    torch.set_warn_always(False)


def big(config: Config) -> Splits:
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 256, (200, 3, 16, 16), dtype=np.uint8))
    return split(Dataset(images, torch.arange(200) % 2, ("a", "b"), 16), config())


def same(one: Splits, two: Splits) -> bool:
    """All fields, dtypes included."""
    plain = ("classes", "image_size", "mean", "std", "sha256")
    return all(getattr(one, name) == getattr(two, name) for name in plain) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and (a.images.dtype, a.labels.dtype) == (b.images.dtype, b.labels.dtype)
        for a, b in zip(parts(one), parts(two), strict=True)
    )


@pytest.mark.usefixtures("every_warning")
def test_pickle_shares_read_only_memory(config: Config) -> None:
    """As Ray's object store does it: the arrays' bytes apart, given back as memory that nobody may write."""
    splits = big(config)
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(splits, protocol=5, buffer_callback=buffers.append)
    stored = [bytes(buffer.raw()) for buffer in buffers]
    assert len(stream) < 5_000  # no pixels in it
    assert len(stored) == 6
    assert sum(map(len, stored)) == 200 * (3 * 16 * 16 + 8)

    with pytest.raises(UserWarning, match="not writable"):  # so the silence below says something
        torch.from_numpy(np.frombuffer(stored[0], np.uint8))
    loaded = pickle.loads(stream, buffers=stored)

    assert same(loaded, splits)
    memory = [np.frombuffer(buffer, np.uint8) for buffer in stored]
    for part in parts(loaded):
        for tensor in (part.images, part.labels):
            assert sum(np.shares_memory(tensor.numpy(), block) for block in memory) == 1


def test_pickle_shares_own_memory(config: Config) -> None:
    """Nor does the writing side copy: given the same buffers, the copy is a view of the original."""
    splits = big(config)
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(splits, protocol=5, buffer_callback=buffers.append)
    loaded = pickle.loads(stream, buffers=buffers)
    for part, original in zip(parts(loaded), parts(splits), strict=True):
        assert part.images.data_ptr() == original.images.data_ptr()
        assert part.labels.data_ptr() == original.labels.data_ptr()


@pytest.mark.usefixtures("every_warning")
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_in_band(protocol: int, config: Config) -> None:
    splits = big(config)
    loaded = pickle.loads(pickle.dumps(splits, protocol=protocol))
    assert same(loaded, splits)
    assert loaded.train.images.data_ptr() != splits.train.images.data_ptr()


@pytest.mark.usefixtures("every_warning")
def test_pickle_twice(config: Config) -> None:
    """What was read from shared memory goes out again."""
    splits = big(config)
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(splits, protocol=5, buffer_callback=buffers.append)
    loaded = pickle.loads(stream, buffers=[bytes(buffer.raw()) for buffer in buffers])
    again = pickle.loads(pickle.dumps(loaded, protocol=5))
    assert same(again, splits)
