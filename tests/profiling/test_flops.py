from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import models
from models import ModelError, TrainConfig
from profiling.__main__ import app
from profiling.flops import count, frame, macs, training_flops

GOLDEN = Path(__file__).parent / "golden"
PUBLISHED_MILLIONS = {
    "resnet18 at 28": 33.18,
    "resnet50 at 28": 78.76,
    "resnet18 at 224": 1824.0,
    "resnet50 at 224": 4132.0,
}
"""Reports' multiply-accumulates, in millions, to four digits."""


@pytest.mark.parametrize(
    ("golden", "arguments"),
    [
        ("flops_1x28.csv", []),
        ("flops_3x224.csv", ["--models", "resnet18,resnet50", "--channels", "3", "--image-size", "224"]),
    ],
)
def test_flops_table_is_the_golden_one(golden: str, arguments: list[str], tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["flops", *arguments, "--output", str(tmp_path / "table.csv")])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "table.csv").read_text() == (GOLDEN / golden).read_text()


def test_flops_golden_tables_meet_the_published_figures() -> None:
    tables = pd.concat(pd.read_csv(path) for path in sorted(GOLDEN.glob("flops_*.csv")))
    ours = tables.set_index(tables["model"] + " at " + tables["image_size"].astype(str))
    millions = (ours["macs_thop"] / 1e6).loc[list(PUBLISHED_MILLIONS)]
    assert {key: float(f"{value:.4g}") for key, value in millions.items()} == PUBLISHED_MILLIONS
    assert (ours["macs"] == ours["macs_torch"])[ours["macs_torch"].notna()].all()
    assert (ours["macs"] == ours["fvcore_conv"] + ours["fvcore_linear"])[ours["macs_torch"].notna()].all()


def test_flops_parquet_holds_the_same_as_csv(tmp_path: Path) -> None:
    table = frame([count(TrainConfig(model=name), 1, 8) for name in ("mlp", "baseline", "svm")])
    ran = CliRunner().invoke(
        app, ["flops", "--models", "mlp,baseline,svm", "--image-size", "8", "--output", str(tmp_path / "t.parquet")]
    )
    assert ran.exit_code == 0, ran.output
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table)
    assert table["macs_fvcore"].isna().tolist() == [False, False, True]


def test_macs_is_the_tables_figure_and_none_for_an_svm() -> None:
    for name in models.names():
        config = TrainConfig(model=name)
        expected = count(config, 1, 28).macs if models.is_network(name) else None
        assert macs(config, 1, 10, 28) == expected


def test_macs_follow_from_the_shapes() -> None:
    convolutions = 28 * 28 * 16 * 9 * 3 + 14 * 14 * 32 * 9 * 16
    assert macs(TrainConfig(model="baseline"), 3, 10, 28) == convolutions + 32 * 7 * 7 * 128 + 128 * 10
    assert macs(TrainConfig(model="mlp", hidden_layers=2, hidden_units=7), 1, 3, 4) == 16 * 7 + 7 * 7 + 7 * 3


def test_training_flops_leave_out_the_gradient_of_the_images() -> None:
    first, second = 784 * 100, 100 * 10
    assert training_flops(TrainConfig(model="mlp"), 1, 10, 28) == 2 * (2 * first + 3 * second)


def test_count_of_an_svm_is_its_support_vectors_times_features() -> None:
    small, large = (count(TrainConfig(model="svm"), channels, 8) for channels in (1, 3))
    vectors = int(small.counted_on.split()[0])
    assert 0 < vectors <= 200
    assert small.macs == vectors * 64
    assert large.macs == vectors * 64 * 3  # the same grey in each channel


def test_count_refuses_images_that_are_too_small() -> None:
    with pytest.raises(ModelError, match="simple_cnn cannot train on 1×4×4 images"):
        count(TrainConfig(model="simple_cnn"), 1, 4)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--models", "resnet19"], "--models 'resnet19': there are resnet18, resnet50, "),
        (["--models", "mlp,"], "--models 'mlp,': is not a list by commas"),
        (["--image-size", "28.5"], "--image-size '28.5': is not a whole number from 4 to 1,024"),
        (["--image-size", "2"], "--image-size '2': is not a whole number from 4 to 1,024"),
        (["--channels", "0"], "--channels '0': is not a whole number from 1 to 1,024"),
        (["--output", "table.txt"], "table.txt: a table is written as .csv or .parquet"),
        (["--output", "no/such/t.csv"], "no/such/t.csv: is no place for a file"),
        (["--models", "simple_cnn", "--image-size", "4"], "simple_cnn cannot train on 1×4×4 images"),
    ],
)
def test_flops_wrong_input_is_one_line_and_exit_2(arguments: list[str], line: str) -> None:
    ran = CliRunner().invoke(app, ["flops", *arguments])
    assert ran.exit_code == 2
    assert ran.stderr.startswith("error: " + line)
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("model", ["mlp", "svm"])
def test_flops_of_more_than_memory_holds_is_one_line(model: str) -> None:
    ran = CliRunner().invoke(app, ["flops", "--models", model, "--channels", "1024", "--image-size", "1024"])
    assert (ran.exit_code, ran.stderr) == (
        2, f"error: {model} on 1024×1024×1024 images: counting needs more memory than there is\n",
    )  # fmt: skip
