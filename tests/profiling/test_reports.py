"""The published figures, as data."""

from __future__ import annotations

import csv
from collections import Counter

from models import TrainConfig, names
from profiling import reports


def test_read_has_every_row_of_the_file_once() -> None:
    with reports.FILE.open(newline="") as lines:
        records = [tuple(record.items()) for record in csv.DictReader(lines)]
    found = reports.read()
    assert len(found) == len(records) == 160
    assert Counter(figure.report for figure in found) == {"A": 42, "B": 44, "C": 32, "D": 41, "E": 1}
    repeated = [dict(record) for record, times in Counter(records).items() if times > 1]
    assert {(record["report"], record["table"]) for record in repeated} == {("D", "seeds")}  # three times the same


def test_tables_are_named_by_report_table_and_data_set() -> None:
    found = reports.tables()
    assert len(found) == len(set(found)) == 21
    assert found[0] == "A/resnet_grid/mnist"
    assert {name.split("/")[2] for name in found} == {"mnist", "fashion_mnist"}


def test_figures_have_configs_that_can_be_trained() -> None:
    for figure in reports.read():
        assert figure.config.get("model", "mlp") in names()
        TrainConfig(**{"model": "mlp"} | figure.config)
        assert 0 < figure.accuracy < 1
        assert figure.metric in ("val", "test")


def test_figures_on_known_numbers_of_images_are_whole_images() -> None:
    for figure in reports.read():
        if figure.eval_images is not None:
            right = figure.accuracy * figure.eval_images
            assert abs(right - round(right)) < 0.0051 * figure.eval_images / 100, figure
