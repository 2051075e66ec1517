"""The page in a real browser: no script errors, sorting, filtering, figures, both themes, a narrow screen, paper."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.tune_jobs.results.report.conftest import MakeRun, Trial
from tune_jobs.errors import UsageError
from tune_jobs.results.report import page
from tune_jobs.results.rundir import RunDir

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

EVIL = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"


def errors(browser: Chrome) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry for entry in log if entry["level"] == "SEVERE"]


def wait(browser: Chrome, script: str) -> Any:
    """Until the script gives something true."""
    for _ in range(300):
        if found := browser.execute_script(f"return {script}"):
            return found
        time.sleep(0.1)
    return pytest.fail(f"never true: {script}")


def draw_all(browser: Chrome) -> None:
    """Scroll to each figure in turn."""
    for index in range(len(browser.find_elements("css selector", ".plot"))):
        place = f"document.querySelectorAll('.plot')[{index}]"
        browser.execute_script(f"{place}.scrollIntoView({{behavior: 'instant'}})")
        wait(browser, f"{place}.dataset.drawn === 'yes'")


def emulate(browser: Chrome, scheme: str, width: int) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def shown(browser: Chrome) -> list[list[str]]:
    """The cells of the table's rows that can be seen."""
    seen = "[...document.querySelectorAll('.trials tbody tr:not([hidden])')]"
    rows: list[list[str]] = browser.execute_script(f"return {seen}.map(r => [...r.cells].map(c => c.textContent))")
    return rows


def head(browser: Chrome, name: str) -> tuple[WebElement, WebElement, int]:
    """A column's button, its filter and its number."""
    heads = browser.find_elements("css selector", ".trials th button")
    index = [element.text for element in heads].index(name)
    return heads[index], browser.find_elements("css selector", ".trials .filters input")[index], index


def test_page_sorts_filters_and_draws_without_an_error(sampled: Callable[[int], RunDir], browser: Chrome) -> None:
    run = sampled(60)
    page.write([run], run.report)
    browser.get(run.report.as_uri())
    assert len(shown(browser)) == 60
    button, filter_, column = head(browser, "lr")
    button.click()
    descending = [float(row[column]) for row in shown(browser)]
    assert descending == sorted(descending, reverse=True)
    button.click()
    ascending = [float(row[column]) for row in shown(browser)]
    assert ascending == sorted(ascending)
    filter_.send_keys("> 0.01")
    kept = [float(row[column]) for row in shown(browser)]
    assert kept == [value for value in ascending if value > 0.01]
    _, states, state = head(browser, "state")
    states.send_keys("pruned")
    assert {row[state] for row in shown(browser)} == {"PRUNED"}
    assert browser.find_element("css selector", ".shown output").text.endswith("60 in all")
    draw_all(browser)
    assert len(browser.find_elements("css selector", ".plot .main-svg")) >= 8
    assert errors(browser) == []


def test_page_leaves_no_figure_beside_an_empty_half(
    sampled: Callable[[int], RunDir], make_run: MakeRun, browser: Chrome
) -> None:
    two = [({"model": "mlp", "lr": lr}, "COMPLETE", [lr], {"train_time_s": 1 + lr}) for lr in (0.1, 0.2)]
    for run in (sampled(40), make_run(two, name="two")):
        page.write([run], run.report)
        browser.get(run.report.as_uri())
        lefts = "[...document.querySelectorAll('.figures figure:not(.whole)')].map(f => f.getBoundingClientRect().left)"
        found = browser.execute_script(f"return {lefts}")
        assert len(found) % 2 == 0
        assert len(set(found[::2])) == len(set(found[1::2])) == 1


def test_page_is_one_file_that_asks_nobody(sampled: Callable[[int], RunDir], browser: Chrome) -> None:
    run = sampled(30)
    page.write([run], run.report)
    browser.get(run.report.as_uri())
    draw_all(browser)
    asked: list[str] = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in asked if not name.startswith(("data:", "blob:"))] == []


def test_page_escapes_all_that_comes_from_a_run(make_run: MakeRun, browser: Chrome) -> None:
    config = {"model": "mlp", "lr": 0.1, "activation": EVIL}
    trials = [
        (config, "COMPLETE", [0.5, 0.6], {}),
        (config | {"lr": 0.2, "activation": "relu"}, "COMPLETE", [0.5, 0.7], {}),
        (config | {"lr": 0.3}, "FAIL", [], {"failure": "error", "reason": EVIL}),
    ]
    run = make_run(trials, {"description": EVIL})
    page.write([run], run.report)
    browser.get(run.report.as_uri())
    draw_all(browser)
    assert browser.title == "made"
    assert f"error: {EVIL}" in browser.find_element("css selector", ".trials .FAIL td.reason").text
    assert not browser.find_elements("css selector", "img")
    assert errors(browser) == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
def test_page_fits_its_screen_in_both_themes(
    sampled: Callable[[int], RunDir], browser: Chrome, tmp_path: Path, scheme: str, width: int
) -> None:
    run = sampled(40)
    page.write([run], run.report)
    emulate(browser, scheme, width)
    browser.get(run.report.as_uri())
    draw_all(browser)
    sizes = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    wide, room = browser.execute_script(sizes)
    assert wide <= room <= width
    ink, paper = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    ink_light, paper_light = (sum(map(int, re.findall(r"\d+", text)[:3])) for text in (ink, paper))
    assert (ink_light > paper_light) == (scheme == "dark")
    axis = "document.querySelector('.plot .xtick text, .plot .ytick text')"
    assert wait(browser, f"getComputedStyle({axis}).fill") == ink
    shot = base64.b64decode(browser.get_screenshot_as_base64())
    assert len(shot) > 10_000
    emulate(browser, "light" if scheme == "dark" else "dark", width)  # and turns with the system
    other = browser.execute_script("return getComputedStyle(document.body).color")
    assert other != ink
    wait(browser, f"getComputedStyle({axis}).fill === '{other}'")
    assert errors(browser) == []


def test_figures_follow_the_window_and_keep_their_height(sampled: Callable[[int], RunDir], browser: Chrome) -> None:
    run = sampled(40)
    page.write([run], run.report)
    emulate(browser, "light", 1280)
    browser.get(run.report.as_uri())
    draw_all(browser)
    plots = "[...document.querySelectorAll('.plot:has(.main-svg)')]"
    heights = browser.execute_script(f"return {plots}.map(p => p.offsetHeight)")
    emulate(browser, "light", 600)
    fits = "(p) => Math.abs(p.offsetWidth - p.querySelector('.main-svg').clientWidth) <= 1"
    wait(browser, f"{plots}.every({fits})")
    assert browser.execute_script(f"return {plots}.map(p => p.offsetHeight)") == heights
    svg = "p.querySelector('.main-svg').clientHeight"
    assert browser.execute_script(f"return {plots}.map(p => {svg})") == heights
    assert errors(browser) == []


def test_page_of_a_thousand_trials_shows_some_and_finds_all(sampled: Callable[[int], RunDir], browser: Chrome) -> None:
    run = sampled(1000)
    page.write([run], run.report)
    browser.get(run.report.as_uri())
    assert len(shown(browser)) == 100
    _, filter_, column = head(browser, "trial")
    filter_.send_keys("00999")
    assert [row[column] for row in shown(browser)] == ["00999"]
    filter_.clear()
    filter_.send_keys(" ")
    browser.find_element("css selector", "button.more").click()
    assert len(shown(browser)) == 1000
    # Every line of a model is one trace: a thousand would take seconds.
    specs = json.loads(browser.execute_script("return document.getElementById('specs').textContent"))
    assert all(len(spec["data"]) <= 10 for spec in specs.values() if "data" in spec)
    draw_all(browser)
    assert errors(browser) == []


def test_heat_map_follows_what_is_chosen(make_run: MakeRun, browser: Chrome) -> None:
    trials: list[Trial] = [
        ({"model": "mlp", "lr": lr, "batch_size": size}, "COMPLETE", [0.5 + size / 1000 + lr], {})
        for lr in (0.1, 0.2) for size in (16, 32, 64)
    ]  # fmt: skip
    run = make_run(trials, {"space": {"lr": {"grid": [0.1, 0.2]}, "batch_size": {"grid": [16, 32, 64]}}})
    page.write([run], run.report)
    browser.get(run.report.as_uri())
    draw_all(browser)
    place = "document.querySelector('[data-figure=r0-heat]')"
    z = browser.execute_script(f"return {place}.data[0].z")
    assert [[round(value, 1) for value in row] for row in z] == [[61.6, 71.6], [63.2, 73.2], [66.4, 76.4]]
    browser.find_element("css selector", "[data-heat] select[name=y] option:nth-child(1)").click()
    browser.find_element("css selector", "[data-heat] select[name=x] option:nth-child(2)").click()
    wait(browser, f"{place}.data[0].z.length === 2 && {place}.data[0].z[0].length === 3")
    assert errors(browser) == []


def test_heat_map_gives_its_colours_to_what_can_be_told_apart(make_run: MakeRun, browser: Chrome) -> None:
    accuracies = iter([0.88, 0.885, 0.89, 0.895, 0.9, 0.1])
    trials: list[Trial] = [
        ({"model": "mlp", "lr": lr, "batch_size": size}, "COMPLETE", [next(accuracies)], {})
        for lr in (0.1, 0.2) for size in (16, 32, 64)
    ]  # fmt: skip
    run = make_run(trials, {"space": {"lr": {"grid": [0.1, 0.2]}, "batch_size": {"grid": [16, 32, 64]}}})
    page.write([run], run.report)
    browser.get(run.report.as_uri())
    draw_all(browser)
    place = "document.querySelector('[data-figure=r0-heat]')"
    low, high, text = browser.execute_script(f"const d = {place}.data[0]; return [d.zmin, d.zmax, d.text]")
    assert (low, high) == (pytest.approx(88), pytest.approx(90))
    assert text[2][1] == "10.00"
    assert errors(browser) == []


def test_page_of_several_runs_says_whether_they_compare(make_run: MakeRun, browser: Chrome, tmp_path: Path) -> None:
    config = {"model": "mlp", "lr": 0.1}
    runs = [
        make_run([(config, "COMPLETE", [accuracy], {})], name=name, sha=sha)
        for name, accuracy, sha in (("one", 0.9, "a"), ("two", 0.8, "a"), ("three", 0.7, "b"))
    ]
    page.write(runs, tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    draw_all(browser)
    lines = [row.text for row in browser.find_elements("css selector", ".plain tbody tr")]
    assert "−10.00 points to the first run, by the searches' own scores (80.00% beside 90.00%)" in lines[1]
    assert "the accuracies do not compare" in lines[2]
    assert len(browser.find_elements("css selector", "table.trials")) == 3
    assert errors(browser) == []


def test_page_on_paper_has_every_figure_and_every_row(sampled: Callable[[int], RunDir], browser: Chrome) -> None:
    run = sampled(150)
    page.write([run], run.report)
    emulate(browser, "dark", 1280)
    browser.get(run.report.as_uri())
    draw_all(browser)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert len(shown(browser)) == 150
    assert (
        browser.execute_script("return getComputedStyle(document.documentElement).getPropertyValue('--paper')")
        == "#ffffff"
    )
    printed = browser.execute_cdp_cmd("Page.printToPDF", {})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    assert errors(browser) == []


def test_page_without_a_usable_trial_or_without_any(make_run: MakeRun, tmp_path: Path) -> None:
    failed = make_run([({"model": "mlp"}, "FAIL", [], {"failure": "error", "reason": "no"})], name="failed")
    for run in (failed, make_run([], name="empty")):
        page.write([run], run.report)
        assert "No usable trial" in run.report.read_text()


def test_page_of_a_damaged_run_is_refused(make_run: MakeRun) -> None:
    run = make_run([])
    run.environment.write_text("{")
    with pytest.raises(UsageError, match=r"environment\.json"):
        page.write([run], run.report)
