from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from tune_jobs import checkpoints
from tune_jobs.checkpoints import Checkpoints


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long writing takes, the next one is due."""
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)


def state(epoch: int) -> dict[str, Any]:
    return {"epochs": epoch, "weights": torch.full((1000,), float(epoch))}


def save(kept: Checkpoints, *epochs: int) -> None:
    for epoch in epochs:
        kept.save(epoch, lambda epoch=epoch: state(epoch))  # type: ignore[misc]


@pytest.mark.usefixtures("always")
def test_load_gives_the_last_two_the_newest_first(tmp_path: Path) -> None:
    kept = Checkpoints(str(tmp_path), "00003")
    assert list(kept.load()) == []
    save(kept, 1, 2, 3)
    assert [found["epochs"] for found in Checkpoints(str(tmp_path), "00003").load()] == [3, 2]
    assert list(Checkpoints(str(tmp_path), "00004").load()) == []
    assert len(list((tmp_path / "00003").iterdir())) == 2


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_load_passes_over_a_damaged_one(tmp_path: Path, damage: str) -> None:
    kept = Checkpoints(str(tmp_path), "00003")
    save(kept, 1, 2)
    newest = max((tmp_path / "00003").iterdir())
    data = bytearray(newest.read_bytes())
    if damage == "changed":
        data[len(data) // 2] ^= 1
    newest.write_bytes({"cut": bytes(data[: len(data) // 2]), "changed": bytes(data), "empty": b""}[damage])
    assert [found["epochs"] for found in kept.load()] == [1]


@pytest.mark.usefixtures("always")
def test_load_does_not_see_one_that_was_being_written(tmp_path: Path) -> None:
    kept = Checkpoints(str(tmp_path), "00003")
    save(kept, 1)
    whole = next((tmp_path / "00003").iterdir())
    (whole.parent / ".epoch-00002-00000000.pt.tmp").write_bytes(whole.read_bytes()[:50])
    assert [found["epochs"] for found in kept.load()] == [1]


def test_save_keeps_to_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 0.5  # it is asked twice while a checkpoint is written, once where none is due
            return self.now

    clock = Clock()
    monkeypatch.setattr(checkpoints, "time", clock)
    kept = Checkpoints(str(tmp_path), "00003")
    save(kept, 1, 2, 3)
    assert [found["epochs"] for found in kept.load()] == [1]
    clock.now += 0.5 * 19
    save(kept, 4)
    assert [found["epochs"] for found in kept.load()] == [4, 1]


@pytest.mark.usefixtures("always")
def test_drop_leaves_the_model_alone_and_drop_all_nothing(tmp_path: Path) -> None:
    kept = Checkpoints(str(tmp_path / "runs"), "00003")
    save(kept, 1, 2)

    def write(path: Path) -> None:
        path.write_bytes(b"weights")

    kept.write_model(write, tmp_path)
    assert [found["epochs"] for found in kept.load()] == [2, 1]  # until the driver has written down how it ended
    kept.drop()
    assert [path.name for path in (tmp_path / "runs" / "00003").iterdir()] == ["model.safetensors"]
    assert kept.read_model() == b"weights"
    kept.drop_all()
    assert list((tmp_path / "runs").iterdir()) == []
    assert kept.read_model() is None
    kept.drop_all()


@pytest.mark.usefixtures("always")
def test_save_on_a_full_disk_leaves_no_torn_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoints(str(tmp_path), "00003")
    save(kept, 1)

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def move(self, *_: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    real = kept._files
    monkeypatch.setattr(kept, "_files", Full())
    with pytest.raises(OSError, match="No space left"):
        save(kept, 2)
    assert [path.name[:11] for path in (tmp_path / "00003").iterdir()] == ["epoch-00001"]


def test_load_unpickles_nothing(tmp_path: Path) -> None:
    """A checkpoint is data: one that holds objects is passed over, not made."""
    kept = Checkpoints(str(tmp_path), "00003")
    kept.save(1, lambda: {"epochs": Path("x")})
    assert list(kept.load()) == []


@pytest.mark.usefixtures("always")
def test_a_training_that_begins_again_keeps_its_own_and_those_of_where_it_can_go_on(tmp_path: Path) -> None:
    """As on a node whose card has not the precision that it began in, from which it may come back."""
    kept = Checkpoints(str(tmp_path), "00003")
    save(kept, 148, 149, 150)
    save(kept, 1)
    assert [found["epochs"] for found in kept.load()] == [150, 149, 1]
    save(kept, 2, 3)
    assert [found["epochs"] for found in kept.load()] == [150, 149, 3, 2]
    kept.drop()
    assert list(kept.load()) == []


@pytest.mark.usefixtures("always")
def test_folders_are_the_trials_that_have_something(tmp_path: Path) -> None:
    assert checkpoints.folders(str(tmp_path / "none")) == set()
    for own in ("00003", "00007-1"):
        save(Checkpoints(str(tmp_path), own), 1)
    assert checkpoints.folders(str(tmp_path)) == {"00003", "00007-1"}
