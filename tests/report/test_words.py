"""Numbers and strange text as people should see them."""

from __future__ import annotations

import doctest
import unicodedata

import pytest
from markdown_it import MarkdownIt

from grainline.report import words


def test_examples() -> None:
    found = doctest.testmod(words)
    assert found.attempted > 6
    assert not found.failed


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (-1e-9, "−1.00e−09"),
        (9.9996, "10.000"),
        (12.345, "12.35"),
        (123456.7, "123,456.7"),
        (1e9, "1.00e+09"),
        (7, "7"),
        (10**400, "huge"),
        (-(10**20), "−1.00e+20"),
        (float("inf"), "inf"),
        (None, "–"),
        (True, "True"),
        ("x", "x"),
    ],
)
def test_numbers(value: object, said: str) -> None:
    assert words.number(value) == said


def test_an_interval_that_is_a_point_is_not_one() -> None:
    assert words.interval("a", {"a": 0.5, "a_low": 0.25, "a_high": 0.75}) == "0.500 [0.250, 0.750]"
    assert words.interval("a", {"a": 0.5, "a_low": 0.5, "a_high": 0.5}) == "0.500"
    assert words.interval("b", {"a": 0.5}) == "–"


def test_nothing_that_acts_unseen_is_left() -> None:
    everything = "".join(map(chr, range(0x11000))) + "".join(map(chr, range(0xE0000, 0xE0080)))
    left = words.harmless(everything)
    acting = {c for c in left if unicodedata.category(c) in ("Cc", "Cs") or unicodedata.bidirectional(c)[-1:] in "OEI"}
    direction = {c for c in left if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI")}
    assert {c for c in acting if unicodedata.category(c) in ("Cc", "Cs")} == {"\t", "\n"}
    assert not direction
    left.encode()


def test_real_writing_is_left_alone() -> None:
    for text in ("שלום עולם", "مرحبا", "नमस्ते", "👩\u200d🔬", "naïve – “so”"):
        assert words.harmless(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:alert(1))",
        "![x](http://evil.example/a.png)",
        "<script>alert(1)</script>",
        "a | b",
        "*a* _b_ `c` ~~d~~",
        "[x]: http://evil.example",
        "# t",
        "- t",
        "1. t",
        "&lt;b&gt;",
        "a\n\n# b",
        "<http://evil.example>",
    ],
)
def test_text_in_a_line_of_markdown_is_text(text: str) -> None:
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(words.inline(text))
    assert html.startswith("<p>")
    inside = html.removeprefix("<p>").removesuffix("</p>\n")
    assert "<" not in inside, html


@pytest.mark.parametrize("text", ["```\n# out", "a ````` b", "```` x"])
def test_text_in_a_block_stays_there(text: str) -> None:
    html = MarkdownIt("commonmark").render(words.fenced(text) + "\n\nafter")
    assert html.count("<pre>") == 1
    assert "<h1>" not in html
    assert html.endswith("<p>after</p>\n")
