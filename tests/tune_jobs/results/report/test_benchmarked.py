"""The report of a benchmark.  Every row here is made up, in the format of the real files: no GPU was measured."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from profiling import rows
from profiling.rows import Row
from tests.profiling.conftest import MADE_UP
from tests.tune_jobs.results.report.conftest import MakeRun
from tests.tune_jobs.results.report.test_page import draw_all, emulate, errors
from tune_jobs.errors import UsageError
from tune_jobs.results import rundir
from tune_jobs.results.report import all_rows, benchmarked, page, text
from tune_jobs.results.report.bars import bars
from tune_jobs.results.rundir import RunDir

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

EVIL = "<img src=x onerror=\"document.title = 'owned'\">"


def cpu(**fields: Any) -> Row:
    return Row(**(MADE_UP | fields))


def gpu(**fields: Any) -> Row:
    return cpu(**({"compute": "cuda:0", "device_name": "no real GPU", "precision": "fp16", "threads": 8} | fields))


ROWS = [
    cpu(images_per_s=150.0, model="resnet18", threads=16),
    cpu(images_per_s=12_000.0),
    cpu(images_per_s=5000.0, model="svm", optimizer=None, batch_size=None),
    gpu(images_per_s=2250.0, model="resnet18", card_memory_mib=300.0),
    gpu(images_per_s=9000.0),
    gpu(images_per_s=700.0, model="cnn"),
    gpu(images_per_s=math.nan, model="resnet50", state="FAIL", reason=f"OutOfMemoryError: {EVIL}"),
]


def write(folder: Path, found: list[Row], name: str = "made-up") -> RunDir:
    run = RunDir(folder / name)
    run.path.mkdir()
    rows.write(rows.with_speedups(found), run.benchmark)
    environment = {
        "python": "3.11", "versions": {"torch": "2"}, "git_commit": None, "cpu": "no real CPU", "cpu_cores": 16,
        "memory_gib": 8, "gpus": ["no real GPU"], "data_sha256": "a" * 64,
        "images": {"train": 7000, "val": 1000, "test": 2000},
    }  # fmt: skip
    run.environment.write_text(json.dumps(environment))
    return run


def test_bars_are_a_group_a_work_with_the_speed_up_over_the_cpu() -> None:
    figure = bars(rows.with_speedups(ROWS))
    assert figure is not None
    on_cpu, on_gpu = figure.spec["data"]
    assert (on_cpu["name"], on_gpu["name"]) == ("CPU: no real CPU", "cuda:0: no real GPU")
    assert on_cpu["y"] == ["resnet18", "mlp", "svm"]
    assert on_gpu["y"] == ["resnet18", "mlp", "cnn"]
    assert on_cpu["text"] == ["150/s", "12,000/s", "5,000/s"]
    assert on_gpu["text"] == ["15×", "0.75×", "no CPU row"]
    for said in (
        "precision fp16",
        "8 threads",
        "batch 16",
        "15.00 times the rate of the CPU",
        "spread 10% over 3 repeats",
    ):
        assert said in on_gpu["customdata"][0]
    assert figure.spec["layout"]["xaxis"]["type"] == "log"
    assert "logarithmic" in figure.caption
    assert "28 px, batch 16, precision auto, fashion_mnist, 49,000 images an epoch" in figure.caption
    assert "Precision auto was fp32 on cpu, fp16 on cuda:0." in figure.caption
    asked = bars([cpu(asked_precision="fp32"), gpu(asked_precision="fp32", precision="fp32")])
    assert asked is not None
    assert "auto" not in asked.caption


def test_bars_without_an_accelerator_say_that_its_half_is_empty() -> None:
    alone = bars([cpu(), cpu(batch_size=64, images_per_s=2000.0)])
    assert alone is not None
    assert "No accelerator was there to be measured: its half is empty" in alone.caption
    assert alone.spec["data"][0]["y"] == ["mlp<br>batch 16", "mlp<br>batch 64"]
    assert alone.spec["layout"]["xaxis"]["range"][0] == 0
    failed = bars([cpu(), ROWS[-1]])
    assert failed is not None
    assert "No row on an accelerator could be measured" in failed.caption
    assert bars([ROWS[-1]]) is None


def test_machines_are_told_apart() -> None:
    figure = bars([cpu(), gpu(machine="other")])
    assert figure is not None
    assert [trace["name"] for trace in figure.spec["data"]] == [
        "CPU: no real CPU (made-up)", "cuda:0: no real GPU (other)",
    ]  # fmt: skip


def test_find_of_a_benchmark_is_asked_for(tmp_path: Path) -> None:
    run = write(tmp_path, ROWS)
    for name in ("made-up", str(run.path)):
        assert rundir.find(name, tmp_path, benchmarks=True).is_benchmark
        with pytest.raises(UsageError, match="is a benchmark, no search"):
            rundir.find(name, tmp_path)


def test_markdown_and_csv_of_benchmarks(tmp_path: Path, make_run: MakeRun) -> None:
    run, search = write(tmp_path, ROWS), make_run([({"model": "mlp"}, "COMPLETE", [0.5], {})])
    written = text.markdown([run, search])
    assert written.index("# made\n") < written.index("# made-up\n")
    table = [line for line in written[written.index("# made-up") :].splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ROWS)
    assert "break-even, resnet18 sgd at 28 in auto on made-up cuda:0" in written
    printed = pd.read_csv(io.StringIO(all_rows.csv([run])))
    assert printed.pop("run").unique().tolist() == ["made-up"]
    pd.testing.assert_frame_equal(printed, pd.read_csv(run.benchmark.with_suffix(".csv")))
    with pytest.raises(UsageError, match="are no one table"):
        all_rows.csv([run, search])
    assert "\n- ~ an epoch estimated from the timed steps" in written
    assert "\n- nominal: of the whole network's operations" in written
    note = "epochs, images, batch size, lr not stated"
    assert f"| cuda:0 | resnet18 | sgd | 28 | fp16 | A | {note} | ~21,778 |" in text.beside_published([run])
    with pytest.raises(UsageError, match="no row of benchmark mlps"):
        text.beside_published([write(tmp_path, [cpu()], "mlps")])


def test_page_names_the_machines_that_measured(tmp_path: Path) -> None:
    lost = gpu(machine="gone", cpu="", state="FAIL", images_per_s=math.nan, reason="WorkerCrashedError: it died")
    run = write(tmp_path, [cpu(), gpu(machine="node", cpu="another CPU", cpu_cores=64, memory_gib=512.0), lost])
    page.write([run], run.report)
    written = run.report.read_text()
    for said in (
        "<dt>measured on</dt><dd>made-up: no real CPU, 1 cores, 1 GiB; Python 3.11.0, torch 2.11.0</dd>",
        "<dt>measured on</dt><dd>node: another CPU, 64 cores, 512 GiB; Python 3.11.0, torch 2.11.0</dd>",
        "<dt>driver</dt><dd>no real CPU, 16 cores, 8 GiB; no real GPU</dd>",
    ):
        assert said in written
    assert "<dd>gone" not in written
    assert "<dt>machine</dt>" not in written


def test_damaged_benchmark_is_refused(tmp_path: Path) -> None:
    run = write(tmp_path, ROWS)
    run.benchmark.write_text("no")
    with pytest.raises(ValueError, match="is no table"):
        benchmarked.load("b0", run)
    run.environment.unlink()
    with pytest.raises(UsageError, match=r"environment\.json"):
        page.write([run], run.report)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_page_of_a_search_and_a_benchmark(
    tmp_path: Path, make_run: MakeRun, browser: Chrome, scheme: str, width: int
) -> None:
    run, search = write(tmp_path, ROWS), make_run([({"model": "mlp"}, "COMPLETE", [0.5], {})])
    page.write([run, search], tmp_path / "report.html")
    emulate(browser, scheme, width)
    browser.get((tmp_path / "report.html").as_uri())
    draw_all(browser)
    assert browser.title == "made · made-up"
    assert len(browser.find_elements("css selector", "#b0-bars .barlayer .bars .point")) == 6
    shown = browser.find_element("css selector", "#b0-rows .trials")
    assert len(shown.find_elements("css selector", "tbody tr")) == len(ROWS)
    assert EVIL in (shown.find_element("css selector", ".FAIL td.reason").get_attribute("textContent") or "")
    assert browser.find_element("css selector", "#b0-rows output").get_attribute("textContent") == f"{len(ROWS)} rows"
    wide, room = browser.execute_script("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    assert wide <= room <= width
    assert errors(browser) == []
