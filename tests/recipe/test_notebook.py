"""A recipe in a notebook's cell."""

from __future__ import annotations

import re

from grainline import recipe as recipes


def rows(html: str) -> dict[str, str]:
    return dict(re.findall(r"<code>(.*?)</code></th><td[^>]*>(.*?)</td>", html))


def test_what_was_chosen_stands_first_and_all_is_there() -> None:
    made = recipes.load({"model": "org/base", "data": "pairs.jsonl", "objective": "dpo:beta=0.3", "steps": 7})
    html = made._repr_html_()
    above, folded = html.split("<details>")
    shown = rows(above)
    assert shown["objective"] == "dpo:beta=0.3"
    assert (shown["model.name"], shown["data.0.path"], shown["steps"]) == ("org/base", "pairs.jsonl", "7")
    assert {"supervision", "adapter", "optimizer", "out"} <= set(shown)
    assert "batch_size" not in shown
    assert rows(folded)["batch_size"] == "16"
    assert not set(shown) & set(rows(folded))


def test_text_is_only_text() -> None:
    html = recipes.load({"model": "a/b", "data": "<script>alert(1)</script>.jsonl"})._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
