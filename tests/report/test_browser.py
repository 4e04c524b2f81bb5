"""The page in a real browser: it opens from the disk and asks for nothing, and pointer and keys read values."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

import _evaluations
import _runs
from _browser import Browser
from _runs import Make, nasty
from grainline.report import words
from grainline.report.page import Page, page

MAIN = '<main id="content">'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield Browser(playwright)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with an evaluation."""
    root = tmp_path_factory.mktemp("measured")
    run = _runs.write(root)
    _evaluations.write(run)
    return page([run]).save(root / "page.html")


@pytest.mark.parametrize(("scheme", "runs"), [("light", 1), ("dark", 2)])
def test_it_opens_from_the_disk_without_a_complaint(
    scheme: str, runs: int, browser: Browser, make: Make, tmp_path: Path
) -> None:
    hostile = nasty(tmp_path)
    _evaluations.nasty(hostile)
    file = page([hostile, *([make("b")] if runs == 2 else [])]).save(tmp_path / "page.html")
    with browser.open(file, color_scheme=scheme) as opened:
        assert opened.page.locator("figure > svg[role=img]").count() > 3
        ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3 / 255
        assert light > 0.9 if scheme == "light" else light < 0.2
        assert (opened.complaints, opened.asked) == ([], [])


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_what_gets_past_the_escaping_can_neither_act_nor_load(
    browser: Browser, listener: tuple[str, list[str]], make: Make, tmp_path: Path
) -> None:
    """The second line of defence: suppose that hostile text came through as it is."""
    address, asked = listener
    attack = (
        f'<script>window.hit = 1</script><img src="{address}/a.png" onerror="window.hit = 2">'
        '<style>body { display: none }</style><p id="styled" style="color: red" onclick="window.hit = 3">x</p>'
        f'<iframe src="{address}/frame"></iframe><form action="{address}/form"></form>'
        f'<link rel="stylesheet" href="{address}/a.css"><script src="{address}/a.js"></script>'
    )
    html = page([make()]).html
    assert html.count(MAIN) == 1
    naked = html.replace(re.search(r"<meta http-equiv[^>]*>", html)[0], "")  # type: ignore[index]
    for text, safe in ((html, True), (naked, False)):
        file = Page(text.replace(MAIN, MAIN + attack), "").save(tmp_path / "page.html")
        with browser.open(file) as opened:
            hit, shown = opened.page.evaluate("[window.hit, getComputedStyle(document.body).display]")
            assert (hit is None, shown == "block") == (safe, safe)
            if safe:
                opened.page.locator("#styled").click()
                opened.page.evaluate("document.querySelector('form').requestSubmit()")
                assert opened.page.evaluate("window.hit") is None
                colour = opened.page.evaluate("getComputedStyle(document.getElementById('styled')).color")
                assert colour != "rgb(255, 0, 0)"
                assert len(opened.complaints) > 5
                assert asked == []
    assert {"/a.png", "/frame", "/a.css", "/a.js"} <= set(asked)  # so the listener would have heard


def test_values_are_read_off_a_curve(browser: Browser, measured: Path) -> None:
    with browser.open(measured) as opened:
        figure = opened.page.locator("figure", has_text="share of pairs won")
        drawing, said = figure.locator("svg[role=img]"), figure.locator(".readout")
        drawing.scroll_into_view_if_needed()
        box = drawing.bounding_box()
        opened.page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
        assert said.inner_text() == "step 30: training 0.75; held out, test 0.8 [0.7, 0.9]"
        opened.page.mouse.move(0, 0)
        assert said.inner_text() == ""
        drawing.focus()
        opened.page.keyboard.press("Home")
        assert said.inner_text() == "step 0: held out, test 0.5 [0.5, 0.5]"
        opened.page.keyboard.press("ArrowRight")
        assert said.inner_text() == "step 1: training 0.75"
        dot = drawing.locator("circle.at").bounding_box()
        assert box["x"] < dot["x"] < box["x"] + box["width"] / 6
        opened.page.keyboard.press("Escape")
        assert drawing.locator(".at").count() == 0
        assert opened.complaints == []


def test_tokens_are_walked_by_keys(browser: Browser, measured: Path) -> None:
    row = _evaluations.rows()[0]
    kl = [words.number(value) for value in row["chosen"]["kl"]]
    with browser.open(measured) as opened:
        keys, said = opened.page.keyboard, opened.page.locator(".said").first
        opened.page.locator("#pair-1-1").focus()
        assert said.inner_text().startswith("“Warm” chosen, token 1 of")
        keys.press("ArrowRight")
        assert said.inner_text().startswith("“ water” chosen, token 2 of")
        assert "Segment 1, score 0.25: clear 0.50" in said.inner_text()
        keys.press("End")
        assert "Segment 2" in said.inner_text()
        assert f"KL {kl[-1]}" in said.inner_text()
        keys.press("3")  # what is shaded is said first
        assert opened.page.locator("#shade-c").is_checked()
        assert f": KL {kl[-1]} · Reward" in said.inner_text()
        keys.press("ArrowDown")
        assert opened.page.evaluate("document.activeElement.id") == "pair-1-2"
        keys.press("ArrowDown")  # opens the next pair
        assert opened.page.evaluate("document.activeElement.closest('details').open")
        assert opened.page.evaluate("document.activeElement.getAttribute('aria-activedescendant')") == "pair-2-1-0"
        outline = "getComputedStyle(document.querySelector('#pair-2-1 .on')).outlineStyle"
        assert opened.page.evaluate(outline) == "solid"
        keys.press("0")
        shown = "getComputedStyle(document.querySelector('#pair-1-1 .t'), '::after').content"
        assert opened.page.evaluate(shown) == f'"{kl[0]}"'
        assert (opened.complaints, opened.asked) == ([], [])


def test_tokens_are_read_by_a_pointer(browser: Browser, measured: Path) -> None:
    with browser.open(measured) as opened:
        opened.page.locator("#pair-1-2 .t").nth(2).hover()
        assert opened.page.locator(".said").first.inner_text().startswith("“ boils” rejected, token 3 of")


@pytest.mark.parametrize("script", [True, False], ids=["with its script", "without"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_shades_are_chosen_even_without_the_script(scheme: str, script: bool, browser: Browser, measured: Path) -> None:
    with browser.open(measured, color_scheme=scheme, java_script_enabled=script) as opened:

        def looks(selector: str) -> tuple[str, str]:
            node = opened.page.locator(selector).first
            return tuple(
                node.evaluate("x => [getComputedStyle(x).backgroundColor, getComputedStyle(x).borderBottomStyle]")
            )

        gains, losses = looks("#pairs .t[class*=ap]"), looks("#pairs .t[class*=an]")
        assert (gains[1], losses[1]) == ("solid", "dashed")
        assert gains[0] != losses[0]
        opened.page.locator("#shade-b").check()  # weights: none below zero
        assert looks("#pairs .t.bp4")[1] == "solid"
        assert opened.page.locator(".legend-b").is_visible()
        assert not opened.page.locator(".legend-a").is_visible()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two runs, measured on the same rows; the second has read one pair more."""
    root = tmp_path_factory.mktemp("compared")
    first, second = _runs.write(root, "a"), _runs.write(root, "b")
    rows = _evaluations.rows()
    _evaluations.write(first, tokens_jsonl=_runs.lines([_evaluations.tokens(row) for row in rows[:2]]))
    turned = [row | {role: row[other] for role, other in TURNED} for row in rows[:3]]
    _evaluations.write(second, tokens_jsonl=_runs.lines([_evaluations.tokens(row) for row in turned]))
    return page([first, second]).save(root / "page.html")


TURNED = (("chosen", "rejected"), ("rejected", "chosen"))


@pytest.mark.parametrize("script", [True, False], ids=["with its script", "without"])
def test_pairs_are_of_the_chosen_run_even_without_the_script(script: bool, browser: Browser, compared: Path) -> None:
    with browser.open(compared, color_scheme="dark", java_script_enabled=script) as opened:
        seen = opened.page.locator
        assert [seen("#pair-1-1").is_visible(), seen("#pair-1-1-of-2").is_visible()] == [True, False]
        assert [seen(f".pair >> nth={i}").is_visible() for i in range(3)] == [True, True, False]
        seen("#run-2").check()
        assert [seen("#pair-1-1").is_visible(), seen("#pair-1-1-of-2").is_visible()] == [False, True]
        assert [seen(f".pair >> nth={i}").is_visible() for i in range(3)] == [True] * 3
        seen(".pair >> nth=2").scroll_into_view_if_needed()
        shades, runs = (seen(f"#pairs fieldset >> nth={i}").bounding_box() for i in range(2))
        assert shades["y"] + shades["height"] <= runs["y"]  # neither hides the other when they stick to the top
        assert (opened.complaints, opened.asked) == ([], [])


def test_a_key_goes_to_the_same_token_of_the_next_run(browser: Browser, compared: Path) -> None:
    rows = _evaluations.rows()
    with browser.open(compared) as opened:
        keys, said = opened.page.keyboard, opened.page.locator(".said").first
        opened.page.locator("#pair-1-1").focus()
        keys.press("ArrowRight")
        assert f"KL {words.number(rows[0]['chosen']['kl'][1])}" in said.inner_text()
        keys.press("r")
        assert opened.page.locator("#run-2").is_checked()
        assert opened.page.evaluate("document.activeElement.id") == "pair-1-1-of-2"
        assert "token 2 of" in said.inner_text()
        assert f"KL {words.number(rows[0]['rejected']['kl'][1])}" in said.inner_text()
        for _ in range(4):  # through the answers of this run alone, into the pair that only it has read
            keys.press("ArrowDown")
        assert opened.page.evaluate("document.activeElement.id") == "pair-3-1-of-2"
        keys.press("r")  # there is no other run that read it
        assert opened.page.locator("#run-2").is_checked()
        keys.press("ArrowUp")
        keys.press("r")
        assert opened.page.evaluate("document.activeElement.id") == "pair-2-2"
        assert (opened.complaints, opened.asked) == ([], [])


def test_a_narrow_window_does_not_scroll_sideways(browser: Browser, measured: Path) -> None:
    with browser.open(measured, viewport={"width": 360, "height": 740}) as opened:
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_in_a_notebook_s_frame(browser: Browser, measured: Path, tmp_path: Path) -> None:
    """The frame has no origin: its script works, and reaches nothing of the notebook."""
    frame = Page(measured.read_text(encoding="utf-8"), "first")._repr_html_()
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!DOCTYPE html><title>n</title><body>{frame}", encoding="utf-8")
    with browser.open(notebook) as opened:
        inside = opened.page.frame_locator("iframe")
        drawing = inside.locator("figure > svg[role=img]").first
        drawing.focus()
        drawing.press("End")
        assert "step 30" in inside.locator(".readout").first.inner_text()
        assert opened.complaints == []
