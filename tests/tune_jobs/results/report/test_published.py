"""Published figures beside ours: which of our rows is a cell's, what stands there, and what is concluded."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scipy import stats

from tests.tune_jobs.results.report.conftest import MakeRun, Trial
from tune_jobs.errors import UsageError
from tune_jobs.results.report import page, text
from tune_jobs.results.report.loaded import load
from tune_jobs.results.report.published import Table, beside, not_run
from tune_jobs.results.report.published_cell import Cell

if TYPE_CHECKING:
    from tune_jobs.results.rundir import RunDir

LR_BATCH: dict[str, Any] = {
    "published": ["D/lr_batch_grid/mnist"],
    "dataset": {"name": "mnist", "split": {"train": 7000, "val": 1000, "test": 2000}},
}


def cnn(**more: Any) -> dict[str, Any]:
    """A cell of D's grid of learning rates and batch sizes; 97 % are published of it."""
    return {
        "model": "simple_cnn", "optimizer": "adam", "lr": 0.001, "batch_size": 8, "weight_decay": 0.0, "epochs": 20,
        "lr_schedule": "constant",
    } | more  # fmt: skip


def c_cell(**more: Any) -> dict[str, Any]:
    """A cell of C's ResNet grid on FashionMNIST, of which 90.08 % are published after 3 epochs, 90.59 after 5."""
    return {
        "model": "resnet18", "optimizer": "sgd", "lr": 0.001, "batch_size": 16, "pin_memory": False, "epochs": 5,
        "lr_schedule": "constant",
    } | more  # fmt: skip


C_RUN: dict[str, Any] = {
    "published": ["C/resnet_grid/fashion_mnist"],
    "dataset": {"name": "fashion_mnist", "image_size": 64},
}


def complete(config: dict[str, Any], accuracies: list[float], **more: Any) -> Trial:
    return config, "COMPLETE", accuracies, more


def only(run: RunDir) -> Table:
    (found,) = beside([load(run)])
    return found


def cells(found: Table) -> list[Cell]:
    return [cell for cell in found.cells if cell.ours]


def test_cell_is_the_row_with_every_stated_field(make_run: MakeRun) -> None:
    other = cnn(lr=0.5)
    found = only(make_run([complete(other, [0.1]), complete(cnn(), [0.9, 0.96])], LR_BATCH))
    assert found.name == "D/lr_batch_grid/mnist"
    assert set(found.fields) == {"lr", "batch_size"}
    (cell,) = cells(found)
    assert (cell.figure.accuracy, cell.accuracy, cell.ours[0].metric) == (0.97, 0.96, "val")
    assert cell.difference == pytest.approx(-0.01)
    assert len(found.cells) == 20
    assert sum(cell.verdict == "not run" for cell in found.cells) == 19
    assert all(math.isnan(cell.accuracy) and math.isnan(cell.noise) for cell in found.cells if not cell.ours)


def test_other_numbers_of_images_and_epochs_are_marked_and_not_concluded_from(make_run: MakeRun) -> None:
    (cell,) = cells(only(make_run([complete(cnn(epochs=5), [0.9])], LR_BATCH)))
    assert cell.marks == ("7,000 training images for 800", "5 epochs for 20")
    assert cell.verdict == "does not compare"


@pytest.mark.parametrize(
    ("dataset", "epochs", "marks"),
    [
        ({}, 5, ()),
        ({}, 50, ("50 epochs for 5",)),
        ({"limit": 10_000}, 5, ("7,000 training images, where the table's experiment takes 70% of all",)),
        (
            {"split": {"train": 7000, "val": 1000, "test": 2000}},
            2,
            ("7,000 training images, where the table's experiment takes 70% of all", "2 epochs for 5"),
        ),
    ],
)
def test_what_a_report_does_not_state_is_as_in_the_experiment_that_ships(
    make_run: MakeRun, dataset: dict[str, Any], epochs: int, marks: tuple[str, ...]
) -> None:
    config = {"model": "resnet18", "optimizer": "adam", "lr": 0.001, "batch_size": 16, "epochs": epochs}
    document = {"published": ["A/resnet_grid/fashion_mnist"], "dataset": {"name": "fashion_mnist"} | dataset}
    (cell,) = cells(only(make_run([complete(config, [0.9])], document)))
    assert cell.marks == marks
    assert (cell.verdict == "does not compare") == bool(marks)


def test_more_epochs_than_are_stated_are_no_mark(make_run: MakeRun) -> None:
    """The first ones are read."""
    run = in_its_conditions(make_run([complete(c_cell(epochs=9), [0.86] + [0.8] * 8)], C_RUN))
    assert [(cell.figure.epochs, cell.marks) for cell in cells(only(run))] == [(3, ()), (5, ())]


def test_stand_in_is_marked(make_run: MakeRun) -> None:
    standing_in = LR_BATCH | {"dataset": {"name": "fashion_mnist"}}
    (cell,) = cells(only(make_run([complete(cnn(), [0.9])], standing_in)))
    assert cell.marks[0] == "stand-in: fashion_mnist"
    assert cell.verdict == "does not compare"


def test_quick_is_marked_by_what_it_left(make_run: MakeRun) -> None:
    quick = LR_BATCH | {"quick": {"images": 900, "of_images": 1900, "epochs": 4, "of_epochs": 20}}
    (cell,) = cells(only(make_run([complete(cnn(epochs=4), [0.9])], quick)))
    assert cell.marks == ("quick: 900 of 1,900 images, 4 of 20 epochs",)


def test_fewer_epochs_are_read_from_a_longer_training(make_run: MakeRun) -> None:
    found = only(make_run([complete(c_cell(), [0.80, 0.85, 0.84, 0.86, 0.85])], C_RUN))
    three, five = cells(found)
    assert (three.figure.epochs, three.accuracy, three.ours[0].metric) == (3, 0.85, "val")
    assert (five.figure.epochs, five.ours[0].metric) == (5, "test")
    assert five.accuracy == pytest.approx(0.85)  # the best epoch's test accuracy, a point below its validation
    assert three.ours[0].best_epoch == 2
    assert any(note.startswith("val for test: our validation accuracy beside their test") for note in found.notes)


def test_validation_accuracy_is_not_judged_by_a_published_test_accuracy(make_run: MakeRun) -> None:
    run = in_its_conditions(make_run([complete(c_cell(), [0.80, 0.85, 0.84, 0.9159, 0.85])], C_RUN))
    three, five = cells(only(run))
    assert (three.marks, three.verdict) == (("val for test",), "does not compare")
    assert (five.marks, five.verdict) == ((), "within noise")
    assert "| – |" in next(line for line in text.beside_published([run]).splitlines() if "val for test |" in line)


def test_highest_of_several_configs_by_the_validation_images_does_not_compare(make_run: MakeRun) -> None:
    trials = [
        complete(cnn(augment=augment), [accuracy]) for augment, accuracy in (("none", 0.95), ("rotate_shift", 0.9))
    ]
    (cell,) = cells(only(make_run(trials, LR_BATCH)))
    assert (cell.chosen_from, cell.verdict) == (2, "does not compare")
    assert cell.marks[-1] == "ours is the highest of 2 configs on the images they were chosen by"
    test = replace(cell, figure=replace(cell.figure, metric="test"), ours=(replace(cell.ours[0], metric="test"),))
    assert test.marks == cell.ours[0].marks  # the test images chose nothing


def test_fewer_epochs_have_the_test_accuracy_where_the_best_epoch_is_among_them(make_run: MakeRun) -> None:
    three, five = cells(only(make_run([complete(c_cell(), [0.80, 0.87, 0.84, 0.86, 0.85])], C_RUN)))
    assert three.ours[0].metric == five.ours[0].metric == "test"
    assert three.accuracy == five.accuracy == pytest.approx(0.86)


def test_fewer_epochs_are_not_read_where_the_rate_follows_the_whole_run(make_run: MakeRun) -> None:
    (five,) = cells(only(make_run([complete(c_cell(lr_schedule="cosine"), [0.8] * 5)], C_RUN)))
    assert five.figure.epochs == 5


def test_noise_without_repeats_is_of_the_images(make_run: MakeRun) -> None:
    run = make_run([complete(c_cell(), [0.8, 0.8, 0.8, 0.8, 0.9159])], C_RUN)
    cell = cells(only(run))[1]
    ours, theirs = 0.9059, 0.9059
    assert cell.noise == pytest.approx(
        stats.norm.ppf(0.975) * math.sqrt((ours * (1 - ours) + theirs * (1 - theirs)) / 2000)
    )
    assert "not stated, taken to be as many" in cell.noise_source
    assert not cell.with_seeds


def test_noise_of_stated_images_is_theirs(make_run: MakeRun) -> None:
    cell = cells(only(make_run([complete(cnn(), [0.96])], LR_BATCH)))[0]
    assert cell.noise == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(0.96 * 0.04 / 1000 + 0.97 * 0.03 / 100))


def test_noise_with_repeats_has_the_seeds_in_it(make_run: MakeRun) -> None:
    repeats = [
        complete(cnn(seed=42 + fold), [accuracy], fold=fold, number=0)
        for fold, accuracy in enumerate([0.94, 0.96, 0.98])
    ]
    found = only(make_run(repeats, LR_BATCH | {"repeats": 3}))
    (cell,) = cells(found)
    assert len(cell.ours) == 3
    assert cell.accuracy == pytest.approx(0.96)
    images, seeds = 0.96 * 0.04 / 1000 + 0.97 * 0.03 / 100, 0.02**2 * (1 + 1 / 3)
    degrees = 2 * ((images + seeds) / seeds) ** 2
    assert cell.noise == pytest.approx(stats.t.ppf(0.975, degrees) * math.sqrt(images + seeds))


@pytest.mark.parametrize(("repeats", "half"), [(2, 2.27), (3, 1.49), (5, 1.24)])
def test_noise_allows_for_a_spread_over_few_seeds(make_run: MakeRun, repeats: int, half: float) -> None:
    """0.4 points over seeds, 90 % of 14,000 images on both sides."""
    spread = 0.004 / statistics.stdev(range(repeats))
    drawn = [
        complete(c_cell(seed=fold), [0.5] * 4 + [0.91 + spread * (fold - (repeats - 1) / 2)], fold=fold, number=0)
        for fold in range(repeats)
    ]
    run = make_run(drawn, C_RUN | {"repeats": repeats})
    loaded = load(run)
    loaded.environment["images"]["test"] = 14_000
    (found,) = beside([loaded])
    cell = replace(cells(found)[-1], figure=replace(cells(found)[-1].figure, accuracy=0.9))
    assert loaded.noise.seeds == pytest.approx(0.004)
    assert cell.ours[0].images == 14_000
    assert 100 * cell.noise == pytest.approx(half, abs=0.005)


def in_its_conditions(run: RunDir) -> RunDir:
    """With as many training images as C's ResNets had."""
    run.environment.write_text(run.environment.read_text().replace('"train": 7000', '"train": 49000'))
    return run


@pytest.mark.parametrize(
    ("accuracy", "repeats", "verdict"),
    [
        (0.9059, 1, "within noise"), (0.88, 1, "outside the images' noise"), (0.9059, 4, "within noise"),
        (0.88, 4, "outside noise"),
    ],
)  # fmt: skip
def test_verdict_in_the_same_conditions(make_run: MakeRun, accuracy: float, repeats: int, verdict: str) -> None:
    trials = [
        complete(c_cell(seed=fold), [0.5] * 4 + [accuracy + 0.01 + 0.0001 * fold], fold=fold, number=0)
        for fold in range(repeats)
    ]
    assert cells(only(in_its_conditions(make_run(trials, C_RUN | {"repeats": repeats}))))[1].verdict == verdict


def test_verdict_on_an_svm_knows_all_its_noise(make_run: MakeRun) -> None:
    document = {"published": ["C/svm/fashion_mnist"], "dataset": {"name": "fashion_mnist"}}
    config = {"model": "svm", "kernel": "rbf", "gamma": "scale", "C": 1.0}
    run = make_run([complete(config, [0.5])], document)
    loaded = load(run)
    (cell,) = cells(beside([loaded])[0])
    assert replace(cell, ours=(replace(cell.ours[0], marks=()),)).verdict == "outside noise"


def test_many_cells_are_said_to_lie_outside_by_chance_too(make_run: MakeRun) -> None:
    document = {"published": ["A/resnet_grid/fashion_mnist"], "dataset": {"name": "fashion_mnist"}}
    trials = [
        complete({"model": "resnet18", "optimizer": o, "lr": lr, "batch_size": b, "epochs": 5}, [0.9])
        for o in ("sgd", "adam") for lr in (0.001, 0.0001) for b in (16, 32)
    ]  # fmt: skip
    said = "of 8 cells that compare, about 0.4 lie outside by chance alone"
    assert said in only(make_run(trials, document, name="many")).notes
    few = only(make_run(trials[:4], document, name="few")).notes
    assert not [note for note in few if "by chance alone" in note]


def test_repeated_figures_each_have_a_training_of_ours(make_run: MakeRun) -> None:
    document = {"published": ["D/seeds/mnist"], "dataset": {"name": "mnist"}}
    config = {"model": "stabilized", "epochs": 50, "lr_schedule": "constant"}
    drawn = [complete(config | {"seed": None}, [0.9 + fold / 100], fold=fold, number=0) for fold in range(3)]
    runs = [make_run(drawn, document | {"repeats": 3}, name="none")]
    runs += [make_run([complete(config | {"seed": 42}, [0.5])], document, name=f"seed-{n}") for n in range(2)]
    (found,) = beside([load(run) for run in runs])
    assert [cell.accuracy for cell in cells(found)] == pytest.approx([0.90, 0.91, 0.92, 0.5, 0.5])
    assert found.fields == ["seed"]
    assert found.cells[-1].verdict == "not run"


def test_several_configs_that_fit_a_cell_are_stood_for_by_the_best(make_run: MakeRun) -> None:
    document = {"published": ["C/svm/fashion_mnist"], "dataset": {"name": "fashion_mnist"}}
    trials = [
        complete({"model": "svm", "kernel": "rbf", "gamma": "scale", "C": c}, [accuracy])
        for c, accuracy in ((1.0, 0.8), (2.0, 0.9))
    ]
    found = only(make_run(trials, document))
    (cell,) = cells(found)
    assert (cell.chosen_from, cell.ours[0].row.config["C"]) == (2, 2.0)
    assert "several of our configs fit a cell: the one with the highest validation accuracy stands there" in found.notes


def test_run_of_no_named_table_fits_where_all_conditions_do(make_run: MakeRun) -> None:
    config = {"model": "resnet18", "optimizer": "adam", "lr": 0.001, "batch_size": 16, "epochs": 5}
    run = make_run([complete(config, [0.9])], {"dataset": {"name": "fashion_mnist"}})
    # B's and C's are of 49,000 images, and this run had 7,000.
    assert [found.name for found in beside([load(run)])] == [
        "A/resnet_grid/fashion_mnist",
        "A/cpu_vs_gpu/fashion_mnist",
    ]
    with pytest.raises(UsageError, match=r"^--published: no finished trial of digits is a cell of a published table"):
        beside([load(make_run([complete(config, [0.9])], {"dataset": {"name": "digits"}}, name="digits"))])


def test_trials_that_are_not_complete_are_no_cell(make_run: MakeRun) -> None:
    trials: list[Trial] = [(cnn(), "PRUNED", [0.9], {"reason": "stopped"}), complete(cnn(batch_size=16), [0.9])]
    (cell,) = cells(only(make_run(trials, LR_BATCH)))
    assert cell.figure.config["batch_size"] == 16


def test_not_run_names_the_other_tables(make_run: MakeRun) -> None:
    missing = not_run([only(make_run([complete(cnn(), [0.9])], LR_BATCH))])
    assert len(missing) == 20
    assert missing[0] == "A/resnet_grid/mnist (16)"


def test_markdown_has_a_row_a_cell(make_run: MakeRun) -> None:
    run = make_run([complete(cnn(), [0.9])], LR_BATCH)
    written = text.beside_published([run])
    assert written.startswith("## Report D, lr_batch_grid, mnist: 1 of 20 cells\n")
    lines = [line for line in written.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 20
    assert len({line.count("|") for line in lines}) == 1
    assert "| 97.00 (val) | 90.00 (val) | -7.00 | – |" in written
    assert "Published, and none of its cells here (cells): A/resnet_grid/mnist (16)" in written.replace("\\", "")


def test_marks_of_all_cells_stand_below_the_table_once(make_run: MakeRun) -> None:
    document = LR_BATCH | {"dataset": {"name": "fashion_mnist"}}
    run = make_run([complete(cnn(), [0.9]), complete(cnn(batch_size=16, epochs=5), [0.9])], document)
    written = text.beside_published([run]).replace("\\", "")
    assert "- does not compare, all cells: stand-in: fashion_mnist; 7,000 training images for 800\n" in written
    assert written.count("stand-in") == 1
    assert "| 8 | 0.001 | does not compare | 97.00 (val)" in written
    assert "| 16 | 0.001 | does not compare; 5 epochs for 20 | 94.00 (val)" in written


def test_markdown_has_parameters_and_best_epochs_where_they_are_published(make_run: MakeRun) -> None:
    config = {
        "model": "baseline", "optimizer": "sgd", "lr": 0.001, "weight_decay": 1e-5, "batch_size": 16, "epochs": 50,
        "lr_schedule": "constant",
    }  # fmt: skip
    document = {"published": ["D/architectures/mnist"], "dataset": {"name": "mnist"}}
    written = text.beside_published([make_run([complete(config, [0.9, 0.8], params=206_922)], document)])
    assert "| 206,922 | 206,922 | 36 | 1 |" in written


def test_page_of_a_run_that_does_a_table_again_has_it(make_run: MakeRun, tmp_path: Path) -> None:
    page.write([make_run([complete(cnn(), [0.9])], LR_BATCH)], tmp_path / "page.html")
    written = (tmp_path / "page.html").read_text()
    assert "<h3>Report D, lr_batch_grid, mnist: 1 of 20 cells</h3>" in written
    assert '<a href="#r0-published">Published</a>' in written
    page.write([make_run([complete(cnn(), [0.9])], name="other")], tmp_path / "page.html")
    assert "Published" not in (tmp_path / "page.html").read_text()
