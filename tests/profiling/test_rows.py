from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from profiling import ProfilingError, published, rows
from profiling.breakeven import find, lines
from profiling.rows import Row
from profiling.tables import (
    NOMINAL,
    PUBLISHED_FIGURES,
    PUBLISHED_WORDS,
    devices_lines,
    pairs,
    published_cells,
    published_lines,
)

Maker = Callable[..., Row]


def same(left: Row, right: Row) -> bool:
    """NaN is NaN."""
    return repr(asdict(left)) == repr(asdict(right))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_rows_come_back_from_their_files(made_up: Maker, gpu: Maker, suffix: str, tmp_path: Path) -> None:
    svm = made_up(model="svm", optimizer=None, batch_size=None, steps=None, estimated=False, training_flops=None)
    failed = gpu(state="FAIL", reason='OutOfMemoryError: "card", full', top_operators=None, images_per_s=math.nan)
    written = [made_up(), svm, gpu(cuda="13.2", speedup=2.5), failed]
    rows.write(written, tmp_path / "rows.parquet")
    back = rows.read(tmp_path / f"rows{suffix}")
    assert len(back) == len(written)
    assert all(map(same, back, written))


def test_rows_files_have_a_column_each_with_types(made_up: Maker, tmp_path: Path) -> None:
    rows.write([made_up(batch_size=None)], tmp_path / "rows.parquet")
    table = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(table.columns) == list(Row.__dataclass_fields__)
    assert str(table["batch_size"].dtype) == "Int64"
    assert str(table["estimated"].dtype) == "bool"


def test_read_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("model,compute\nmlp,cpu\n")
    with pytest.raises(ProfilingError, match=r"other\.csv: is no table of `devices`; it has no column machine, "):
        rows.read(tmp_path / "other.csv")
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(ProfilingError, match=r"bad\.parquet: is no table"):
        rows.read(tmp_path / "bad.parquet")
    with pytest.raises(ProfilingError, match="there is no such file"):
        rows.read(tmp_path / "none.csv")


def test_speedups_are_over_the_cpu_row_of_the_same_work_and_machine(made_up: Maker, gpu: Maker) -> None:
    found = rows.with_speedups([
        made_up(images_per_s=100.0),
        gpu(images_per_s=250.0),
        gpu(images_per_s=250.0, batch_size=32),
        gpu(images_per_s=250.0, machine="another"),
        gpu(state="FAIL", images_per_s=math.nan),
    ])  # fmt: skip
    assert found[0].speedup == 1.0
    assert found[1].speedup == 2.5
    assert all(math.isnan(row.speedup) for row in found[2:])


def test_breakeven_gpu_pays_from_the_batch_size_where_it_stays_faster(made_up: Maker, gpu: Maker) -> None:
    rates = {4: (100.0, 50.0), 16: (110.0, 100.0), 64: (120.0, 200.0), 256: (130.0, 700.0)}
    made = [
        maker(batch_size=size, images_per_s=rate)
        for size, both in rates.items()
        for maker, rate in zip((made_up, gpu), both, strict=True)
    ]
    (one,) = find(made)
    assert (one.batch_sizes, one.faster, one.gpu_pays_from) == ((4, 16, 64, 256), (64, 256), 64)
    assert one.slower == (4,)  # at 16 by 10 %, and the spreads are 10 % each
    assert not one.better_on_cpu
    assert (one.trials_a_card, one.gpu_fraction) == (3, 0.3333)  # 300 of 1,000 MiB
    said, counts = lines(made)
    assert said == (
        "break-even, mlp sgd at 28 in auto on made-up cuda:0: the GPU pays from batch size 64 (measured: 4, 16, 64, "
        "256); training alone takes 300 of the card's 1,000 MiB: gpu 0.3333 at the least (3 at once at the most)"
    )
    assert "a trial needs more, and gpu: auto measures how much" in counts


def test_breakeven_holds_each_machine_against_its_own_cpu(made_up: Maker, gpu: Maker) -> None:
    found = find([made_up(), gpu(images_per_s=2000.0), gpu(machine="another", images_per_s=500.0)])
    told = [(one.machine, one.batch_sizes, one.gpu_pays_from, one.better_on_cpu) for one in found]
    assert told == [("made-up", (16,), 16, False), ("another", (), None, False)]


def test_breakeven_models_better_off_on_a_cpu(made_up: Maker, gpu: Maker) -> None:
    slow = [made_up(), made_up(batch_size=64), gpu(images_per_s=800.0), gpu(batch_size=64, images_per_s=700.0)]
    fast = [made_up(model="resnet18"), gpu(model="resnet18", images_per_s=1300.0)]
    mlp, resnet18 = find([*slow, *fast])
    assert (mlp.better_on_cpu, mlp.gpu_pays_from) == (True, None)
    assert (resnet18.better_on_cpu, resnet18.gpu_pays_from) == (False, 16)
    assert "better off on the CPU at every batch size measured (16, 64)" in lines(slow)[0]


@pytest.mark.parametrize(
    ("rate", "spread", "faster"),
    [(1001.0, math.nan, ()), (1049.0, 0.0, ()), (1051.0, math.nan, (16,)), (1190.0, 0.1, ()), (1210.0, 0.1, (16,))],
)
def test_breakeven_a_lead_within_the_spreads_does_not_count(
    made_up: Maker, gpu: Maker, rate: float, spread: float, faster: tuple[int, ...]
) -> None:
    made = [made_up(spread=spread), gpu(images_per_s=rate, spread=spread)]
    (one,) = find(made)
    assert (one.faster, one.slower, one.better_on_cpu) == (faster, (), False)
    if not faster:
        assert "the GPU has no lead that counts at any batch size measured (16); " in lines(made)[0]


def test_breakeven_gpu_that_falls_behind_again_pays_from_nowhere(made_up: Maker, gpu: Maker) -> None:
    (one,) = find([made_up(), made_up(batch_size=64), gpu(images_per_s=2e3), gpu(batch_size=64, images_per_s=1.0)])
    assert (one.faster, one.gpu_pays_from, one.better_on_cpu) == ((16,), None, False)


@pytest.mark.parametrize(
    ("needs", "trials", "fraction"),
    [(1000.0, 1, 1.0), (501.0, 1, 1.0), (500.0, 2, 0.5), (142.0, 7, 0.1428), (1.0, 99, 0.0101), (1001.0, None, None),
     (math.nan, None, None)],
)  # fmt: skip
def test_breakeven_fraction_places_as_many_trials_as_fit(
    gpu: Maker, needs: float, trials: int | None, fraction: float | None
) -> None:
    (one,) = find([gpu(card_memory_mib=needs)])
    assert (one.trials_a_card, one.gpu_fraction) == (trials, fraction)
    if fraction is not None and trials is not None:
        assert int(1 / fraction + 1e-9) == trials
        assert f"gpu {fraction:g} at the least ({trials} at once at the most)" in lines([gpu(card_memory_mib=needs)])[0]


def test_breakeven_without_a_gpu_says_so(made_up: Maker, gpu: Maker) -> None:
    for without in ([], [made_up()], [made_up(), gpu(state="FAIL", images_per_s=math.nan)]):
        assert find(without) == []
        assert lines(without) == ["break-even: no GPU was measured, so there is none to tell"]


def test_published_rows_are_three_reports_with_both_devices() -> None:
    found = published.read()
    assert len(found) == 24
    assert {(one.report, one.image_size) for one in found} == {("A", 28), ("B", 28), ("C", 224)}
    speedups = {
        (cpu.report, cpu.model, cpu.optimizer): cpu.train_time_ms / card.train_time_ms
        for cpu in found
        for card in found
        if (cpu.device, card.device) == ("cpu", "cuda")
        and (cpu.report, cpu.model, cpu.optimizer) == (card.report, card.model, card.optimizer)
    }
    assert len(speedups) == 12
    assert speedups["A", "resnet18", "sgd"] == pytest.approx(341_621 / 62_967)


def test_published_stand_beside_ours_with_the_ratio_for_an_epoch(made_up: Maker, gpu: Maker) -> None:
    ours = made_up(model="resnet18", images_per_s=490.0, images=700)
    at_224 = gpu(model="resnet18", image_size=224)
    other_batch = made_up(model="resnet18", batch_size=32)
    failed = made_up(model="resnet18", state="FAIL", images_per_s=math.nan)
    found = published.beside([ours, at_224, other_batch, failed])
    assert [(one.published.report, one.row.kind) for one in found] == [("A", "cpu"), ("B", "cpu"), ("C", "cuda")]
    assert found[0].epoch_ms == pytest.approx(100_000)
    assert found[0].ratio == pytest.approx(3.41621)
    assert all(one.is_reckoned for one in found)


def test_published_say_what_is_not_stated_and_what_differs(made_up: Maker, gpu: Maker) -> None:
    exact = made_up(model="resnet18", estimated=False, test_accuracy=0.9, precision="bf16")
    few = gpu(model="resnet18", image_size=224, estimated=False, test_accuracy=0.8, images=1400)
    a, b, c = published.beside([exact, few])
    assert [one.is_reckoned for one in (a, b, c)] == [False, False, True]
    assert a.marks == ["epochs, images, batch size, lr not stated"]
    assert b.marks == ["epochs not stated"]
    assert c.marks == ["our test % is after 1,400 images"]
    cells = dict(zip((*PUBLISHED_WORDS, *PUBLISHED_FIGURES), published_cells(a), strict=True))
    assert (cells["precision"], cells["note"], cells["our epoch ms"]) == ("bf16", a.marks[0], "49,000")
    assert published_cells(c)[7].startswith("~")
    assert any("batch size 16, lr 0.001" in line for line in published_lines())


def test_devices_lines_say_that_operations_are_nominal(made_up: Maker) -> None:
    assert NOMINAL in devices_lines([made_up()])
    assert NOMINAL not in devices_lines([made_up(model="svm", training_flops=None)])


def test_devices_lines_leave_out_a_device_that_nobody_could_name(made_up: Maker, gpu: Maker) -> None:
    told = devices_lines([made_up(), gpu(state="FAIL", device_name="", images_per_s=math.nan)])
    assert told[0] == "made-up cpu: no real CPU, torch 2.11.0"
    assert not any(line.startswith("made-up cuda:0") for line in told)


def test_compare_pairs_rows_of_the_same_work_on_the_same_kind_of_device(made_up: Maker, gpu: Maker) -> None:
    ours = [made_up(), gpu(), made_up(model="resnet18")]
    theirs = [gpu(compute="cuda:3", images=5, machine="other"), made_up(batch_size=1, model="resnet18")]
    assert pairs(ours, theirs) == [(ours[1], theirs[0])]
