from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from models import TrainConfig
from models.precision import tiny_as_zero
from models.result import Fitted
from models.training import fit
from tune_jobs.__main__ import app
from tune_jobs.errors import UsageError
from tune_jobs.results.best import Config
from tune_jobs.train import train_one

ROOT = Path(__file__).parents[2]
DOCUMENT = {
    "dataset": {"name": "digits", "image_size": 8, "limit": 100},
    "train": {"model": "mlp", "epochs": 1},
}


def test_train_one_of_other_images_leaves_the_weights_beside_a_config(tmp_path: Path) -> None:
    chosen = Config.model_validate(DOCUMENT | {"run": "x", "data_sha256": "of others"})
    said: list[str] = []
    weights = tmp_path / "best.safetensors"
    weights.write_text("the run's")
    with pytest.raises(UsageError, match=r"^these are not the images that the config was chosen on; give --output"):
        train_one(chosen, None, weights, said.append, is_beside=True)
    assert weights.read_text() == "the run's"
    train_one(chosen, None, tmp_path / "other.safetensors", said.append, is_beside=False)
    assert "note: these are not the images that the config was chosen on" in said


@pytest.mark.parametrize("run", ["run: x\n", ""])
def test_train_of_a_changed_config_leaves_the_weights_beside_a_runs(run: str, tmp_path: Path) -> None:
    config, weights = tmp_path / "best.yaml", tmp_path / "best.safetensors"
    text = "dataset: {name: digits, image_size: 8, limit: 100}\ntrain: {model: mlp, epochs: 1}\n"
    config.write_text(run + text)
    weights.write_text("the run's")
    ended = CliRunner().invoke(app, ["train", str(config), "--set", "hidden_units=3"])
    if run:
        assert (ended.exit_code, weights.read_text()) == (2, "the run's")
        assert ended.stderr.startswith("error: --set: makes it another config than ")
    else:  # a person's own file
        assert ended.exit_code == 0, ended.stderr
        assert weights.read_bytes() != b"the run's"


@pytest.mark.parametrize(
    ("of_the_search", "has", "ran", "told"),
    [
        ({"precision": "fp32", "device": "cpu"}, True, "fp32", ""),  # where auto would be bf16
        ({"precision": "bf16", "device": "cpu"}, True, "bf16", ""),
        ({"precision": "bf16", "device": "cpu"}, False, "fp32", ", which ran in bf16"),
        ({"precision": "fp16", "device": "cuda"}, True, "bf16", ", which ran in fp16"),
        ({}, True, "bf16", ""),
        ({"fused": 4}, True, "bf16", ", where 4 were trained as one and rounded in another order"),
    ],
)
def test_train_one_runs_in_the_precision_of_the_search_or_tells_that_it_does_not(
    of_the_search: dict[str, Any], has: bool, ran: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    monkeypatch.setattr("models.precision.bf16_speed", lambda: 2.0)
    result = {"val_accuracy": 0.123456} | of_the_search
    chosen = Config.model_validate(DOCUMENT | {"result": result, "resources": {"cpu": 1}})
    said: list[str] = []
    model = tmp_path / "model.safetensors"
    assert train_one(chosen, None, model, said.append, is_beside=False).precision == ran
    assert said[-2] == f"that is not the 12.3456% in the search{told}"
    with safe_open(model, framework="pt") as file:  # as it is in the config's file, which a report asks for
        assert file.metadata()["config"] == TrainConfig(**chosen.train).model_dump_json()


def test_train_one_computes_with_threads_to_which_tiny_numbers_are_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, as in a search, though the images were read by more than one."""
    left: list[int] = []

    def fitted(*arguments: Any) -> Fitted:
        with tiny_as_zero(torch.device("cpu")):
            halved = torch.full((2_000_000,), torch.finfo(torch.float32).tiny).div_(2)
        left.append(int(halved.count_nonzero()))
        return fit(*arguments)

    def run() -> None:
        torch.set_num_threads(2)
        train_one(
            Config.model_validate(document), None, tmp_path / "model.safetensors", lambda _: None, is_beside=False
        )

    monkeypatch.setattr("tune_jobs.train.fit", fitted)
    document = DOCUMENT | {"dataset": {"name": "digits"}, "resources": {"cpu": 2}}
    before = torch.get_num_threads()
    try:
        thread = threading.Thread(target=run)  # which PyTorch has no threads for yet
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert left == [0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_train_that_is_interrupted_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("dataset: {name: digits, image_size: 8}\ntrain: {model: mlp, epochs: 100000}\n")
    words = [sys.executable, "-u", "-m", "tune_jobs", "train", str(config)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "epoch 2:" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        assert process.stderr.read() == "error: interrupted; no model is written\n"
    assert process.returncode == 4
    assert list(tmp_path.iterdir()) == [config]


def test_train_with_more_threads_than_a_process_gets_is_refused(tmp_path: Path) -> None:
    chosen = Config.model_validate(DOCUMENT | {"resources": {"cpu": 100_000}})
    with pytest.raises(UsageError, match=r"^resources\.cpu: 100000: at most 1024 threads in one process$"):
        train_one(chosen, None, tmp_path / "x.safetensors", lambda _: None, is_beside=False)


def test_train_of_a_config_that_asks_for_a_gpu_says_where_there_is_none(tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("dataset: {name: digits}\ntrain: {model: mlp, epochs: 1}\nresources: {gpu: 0.5}\n")
    ran = CliRunner().invoke(app, ["train", str(config)])
    assert ran.exit_code == 0, ran.stderr
    if torch.cuda.is_available():
        assert "asks for gpu" not in ran.stdout
    else:
        assert "note: the config asks for gpu 0.5, and PyTorch sees none here: it trains on the CPU" in ran.stdout
